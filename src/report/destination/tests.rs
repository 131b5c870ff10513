use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;
use crate::skip::skip_unless_ci;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    Destination::prepare("metrics", path)?.write(text)
}

fn prepare(path: &Path) -> Result<(), String> {
    Destination::prepare("metrics", path).map(|_| ())
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_regular_file_is_replaced_whole_and_nothing_is_left_beside_it() {
    let folder = folder();
    let path = folder.path().join("out.prom");
    fs::write(&path, "old").unwrap();
    let mut reader = File::open(&path).unwrap();
    prepare(&path).unwrap();
    assert_eq!(names(&folder), ["out.prom"]);
    write(&path, "new").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(io::read_to_string(&mut reader).unwrap(), "old");
    assert_eq!(names(&folder), ["out.prom"]);
}

#[test]
fn a_failed_report_leaves_nothing_behind() {
    let folder = folder();
    // rename(2) cannot replace a folder.
    let path = folder.path().join("out.prom");
    fs::create_dir(&path).unwrap();
    assert!(replace(&path, "new").is_err());
    assert_eq!(names(&folder), ["out.prom"]);
}

#[test]
fn a_new_file_has_the_mode_that_the_umask_gives() {
    let folder = folder();
    let path = folder.path().join("out.prom");
    // The umask belongs to the whole process, so another program shows its effect.
    let touched = folder.path().join("touched");
    assert!(
        Command::new("touch")
            .arg(&touched)
            .status()
            .unwrap()
            .success()
    );
    write(&path, "").unwrap();
    let mode = |path: &Path| path.metadata().unwrap().mode();
    assert_eq!(mode(&path), mode(&touched));
}

#[test]
fn symbolic_links_are_followed_even_to_a_file_that_does_not_exist() {
    let folder = folder();
    fs::create_dir(folder.path().join("real")).unwrap();
    let link = folder.path().join("link");
    symlink("second", &link).unwrap();
    symlink("real/out.prom", folder.path().join("second")).unwrap();
    for text in ["created", "replaced"] {
        prepare(&link).unwrap();
        write(&link, text).unwrap();
        assert!(link.is_symlink());
        let target = folder.path().join("real/out.prom");
        assert!(!target.is_symlink());
        assert_eq!(fs::read_to_string(target).unwrap(), text);
    }
    symlink("loop", folder.path().join("loop")).unwrap();
    assert!(prepare(&folder.path().join("loop")).is_err());
}

#[test]
fn a_path_that_cannot_work_is_reported_with_the_remedy() {
    let folder = folder();
    let missing = folder.path().join("missing/out.prom");
    let complaint = prepare(&missing).unwrap_err();
    assert_eq!(
        complaint,
        format!(
            "cannot write the metrics {missing:?}: no such file or directory; create its directory first"
        )
    );
    assert_eq!(write(&missing, "").unwrap_err(), complaint);
    for path in [folder.path().to_owned(), folder.path().join("new/")] {
        let complaint = prepare(&path).unwrap_err();
        assert!(
            complaint.ends_with("is a directory; give a file's name"),
            "{complaint}"
        );
        assert!(write(&path, "").is_err());
    }
    assert_eq!(names(&folder), [""; 0]);
}

#[test]
fn a_pipe_without_a_reader_never_blocks() {
    let folder = folder();
    let path = folder.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    for complaint in [prepare(&path).unwrap_err(), write(&path, "x").unwrap_err()] {
        assert!(complaint.ends_with("start its reader first"), "{complaint}");
    }
    assert!(!path.metadata().unwrap().is_file());
}

#[test]
fn what_became_a_pipe_since_the_check_is_not_replaced() {
    let folder = folder();
    let [path, link, pipe] = ["out", "link", "pipe"].map(|name| folder.path().join(name));
    symlink(folder.path().join("missing"), &link).unwrap();
    let file = Destination::prepare("metrics", &path).unwrap();
    let linked = Destination::prepare("metrics", &link).unwrap();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(&pipe, &link).unwrap();
    for destination in [file, linked] {
        let complaint = destination.write("x").unwrap_err();
        assert!(complaint.ends_with("start its reader first"), "{complaint}");
    }
    assert!(!path.metadata().unwrap().is_file() && !pipe.metadata().unwrap().is_file());
}

#[test]
fn a_pipe_is_kept_open_from_the_check_to_the_report() {
    let folder = folder();
    let path = folder.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&path)
        .unwrap();
    let destination = Destination::prepare("metrics", &path).unwrap();
    // While a writer exists, an empty pipe is empty rather than at its end.
    let error = (&reader).read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    destination.write("whole").unwrap();
    // A process that another test starts may contain the pipe for a moment, so the read waits for the end.
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    assert_eq!(io::read_to_string(reader).unwrap(), "whole");
}

#[test]
fn a_pipe_may_hold_less_than_the_report_while_its_reader_reads() {
    let folder = folder();
    let path = folder.path().join("pipe");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let reader = thread::spawn({
        let path = path.clone();
        move || fs::read(path).unwrap().len()
    });
    // Until the reader has opened the pipe, it cannot be used.
    let began = Instant::now();
    let destination = loop {
        match Destination::prepare("metrics", &path) {
            Ok(destination) => break destination,
            Err(complaint) => assert!(began.elapsed() < Duration::from_secs(5), "{complaint}"),
        }
        thread::yield_now();
    };
    let long = "x".repeat(1_000_000);
    destination.write(&long).unwrap();
    assert_eq!(reader.join().unwrap(), long.len());
}

#[test]
fn a_reader_may_be_slow_but_must_not_stand_still() {
    let (mut reader, writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let long = "x".repeat(400_000);
    // More than four times the limit in all, but never as long as the limit at once.
    let reading = thread::spawn(move || {
        let (mut buffer, mut total) = (vec![0; 20_000], 0);
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => return total,
                count => total += count,
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    let began = Instant::now();
    write_in_place(File::from(OwnedFd::from(writer)), 500_u16.into(), &long).unwrap();
    assert!(began.elapsed() > Duration::from_secs(1));
    assert_eq!(reading.join().unwrap(), long.len());

    let (_reader, writer) = io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let stuck = write_in_place(File::from(OwnedFd::from(writer)), 50_u16.into(), &long);
    assert_eq!(stuck.unwrap_err().to_string(), "its reader does not read");
}

#[test]
fn is_same_compares_files_rather_than_names() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    symlink("out", path("link")).unwrap();
    symlink(".", path("folder")).unwrap();
    for exists in [false, true] {
        for name in ["out", "./out", "link", "folder/out"] {
            assert!(is_same(&path("out"), &path(name)), "{name} {exists}");
        }
        assert!(!is_same(&path("out"), &path("other")));
        fs::write(path("out"), "").unwrap();
    }
    fs::hard_link(path("out"), path("other")).unwrap();
    assert!(is_same(&path("out"), &path("other")));
    assert!(is_same(&path("missing/out"), &path("missing/out")));
}

#[test]
fn a_device_is_written_in_place() {
    let folder = folder();
    let node = |name: &str, minor| {
        let path = folder.path().join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, minor)).map(|()| path)
    };
    // Only root may make them, and not in every container.
    let (Ok(null), Ok(full)) = (node("null", 3), node("full", 7)) else {
        return skip_unless_ci("device files cannot be made here");
    };
    if OpenOptions::new().write(true).open(&null).is_err() {
        return skip_unless_ci("device files cannot be used here");
    }
    prepare(&null).unwrap();
    write(&null, "x").unwrap();
    prepare(&full).unwrap();
    let complaint = write(&full, "x").unwrap_err();
    assert!(complaint.contains("no space left on device"), "{complaint}");
    assert!(!null.metadata().unwrap().is_file() && !full.metadata().unwrap().is_file());
    assert_eq!(names(&folder), ["full", "null"]);
}
