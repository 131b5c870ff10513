//! A server's behaviour towards one client: a list of steps, independent of sockets.

use std::time::Duration;

/// What a server does after it has read a client's request.
#[derive(Clone)]
pub(crate) enum Script {
    /// One step after the other; then an orderly close.
    Steps(Vec<Step>),
    /// The first request gets the first script, and so on; the last one repeats.
    InTurn(Vec<Script>),
}

#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Sends the bytes again and again, with a pause in between.
    Forever(Vec<u8>, Duration),
    Pause(Duration),
    /// Sends nothing more until the client has closed.
    Stall,
    /// Resets the connection instead of closing it.
    Reset,
}

/// Accepts, reads the request, and never answers.
pub(crate) fn silent() -> Script {
    raw("").stall()
}

/// A healthy page; its body passes the checks of the shipped manifest.
pub(crate) fn ok() -> Script {
    answer(
        200,
        &[("Content-Type", "application/json")],
        r#"{"status":"healthy"}"#,
    )
}

/// A complete answer with this status and a short body.
pub(crate) fn status(status: u16) -> Script {
    answer(status, &[], "some body\n")
}

/// A redirect without a body.
pub(crate) fn redirect(status: u16, location: &str) -> Script {
    answer(status, &[("Location", location)], "")
}

/// A complete answer with correct framing.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Script {
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    raw(format!(
        "{head}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Exactly these bytes.
pub(crate) fn raw(bytes: impl AsRef<[u8]>) -> Script {
    Script::Steps(vec![Step::Send(bytes.as_ref().to_vec())])
}

/// A different script for each request; the last one repeats.
pub(crate) fn in_turn(scripts: impl IntoIterator<Item = Script>) -> Script {
    Script::InTurn(scripts.into_iter().collect())
}

impl Script {
    pub(crate) fn send(self, bytes: impl AsRef<[u8]>) -> Self {
        self.and(Step::Send(bytes.as_ref().to_vec()))
    }

    pub(crate) fn stall(self) -> Self {
        self.and(Step::Stall)
    }

    pub(crate) fn reset(self) -> Self {
        self.and(Step::Reset)
    }

    pub(crate) fn pause(self, length: Duration) -> Self {
        self.and(Step::Pause(length))
    }

    /// These bytes forever, with 20 ms between two pieces.
    pub(crate) fn drip(self, bytes: impl AsRef<[u8]>) -> Self {
        let pause = Duration::from_millis(20);
        self.and(Step::Forever(bytes.as_ref().to_vec(), pause))
    }

    /// These bytes forever, as fast as the client reads them.
    pub(crate) fn flood(self, bytes: impl AsRef<[u8]>) -> Self {
        // Large pieces, so that the server uses little CPU compared to the client that is measured.
        let piece = bytes.as_ref().repeat(16 * 1024 / bytes.as_ref().len() + 1);
        self.and(Step::Forever(piece, Duration::ZERO))
    }

    fn and(mut self, step: Step) -> Self {
        match &mut self {
            Self::Steps(steps) => steps.push(step),
            Self::InTurn(_) => panic!("steps belong to a single script"),
        }
        self
    }
}
