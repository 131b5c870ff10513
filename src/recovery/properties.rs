//! Properties of the parsers of systemd's and the kernel's output that hold for any input, stated
//! once for proptest and the fuzzer. The input for the round trips is generated from the same bytes.

#![expect(
    clippy::indexing_slicing,
    reason = "a property that does not hold panics in any case"
)]

mod netlink;
mod proc;
mod show;

pub use self::netlink::netlink_property;
pub use self::proc::proc_property;
pub use self::show::show_property;

/// Bytes as a source of choices; when it is used up, each choice is the first.
struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let length = usize::from(self.byte() % 9);
        (0..length).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
