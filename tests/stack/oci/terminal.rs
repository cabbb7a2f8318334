//! Terminals: at a console socket, or ours.

use super::bed::bed;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// The master side that comes over the socket.
fn receive(listener: &UnixListener) -> std::fs::File {
    let (connection, _) = listener.accept().unwrap();
    let mut bytes = [0; 256];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
    let fd = message.cmsgs().unwrap().find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    owned(fd.unwrap()).into()
}

#[allow(unsafe_code)]
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn socket(dir: &Path) -> (UnixListener, String) {
    let path = dir.join("console.sock");
    (UnixListener::bind(&path).unwrap(), path.to_str().unwrap().to_owned())
}

fn read_until(file: &mut std::fs::File, end: &str) -> String {
    let mut text = String::new();
    let mut chunk = [0; 1024];
    while !text.contains(end) {
        match file.read(&mut chunk) {
            Ok(length) if length > 0 => text += &String::from_utf8_lossy(&chunk[..length]),
            _ => break,
        }
    }
    text
}

#[test]
fn the_console_socket_gets_the_terminal() {
    bed(|bed| {
        let (listener, path) = socket(&bed.dir);
        let mut bundle = bed
            .bundle("tty; stty size; ls -l /dev/console | cut -c1; read line; echo heard $line; sleep 1000");
        bundle.config["process"]["terminal"] = true.into();
        bundle.config["process"]["consoleSize"] = serde_json::json!({ "height": 10, "width": 110 });
        let id = bundle.detach_with(&["--console-socket", &path]).to_owned();
        let mut master = receive(&listener);
        let said = read_until(&mut master, "c\r\n");
        assert_eq!(said, "/dev/pts/0\r\n10 110\r\nc\r\n");
        master.write_all(b"words\n").unwrap();
        assert!(read_until(&mut master, "heard words").contains("heard words"));
        let args = ["--console-socket", &path, "-t", "-d", &id, "sh", "-c", "tty; echo end"];
        assert_eq!(bundle.exec(&args).code, 0);
        let said = read_until(&mut receive(&listener), "end");
        assert!(said.contains("/dev/pts/1"), "{said:?}");
    });
}

#[test]
fn a_terminal_in_front_is_passed_through() {
    bed(|bed| {
        let mut bundle = bed.bundle("tty; echo two; exit 3");
        bundle.config["process"]["terminal"] = true.into();
        let said = bundle.run();
        assert_eq!((said.code, said.out.as_str()), (3, "/dev/pts/0\ntwo\n"), "{}", said.err);
    });
}

#[test]
fn terminals_and_sockets_go_together() {
    bed(|bed| {
        let mut bundle = bed.bundle("true");
        bundle.config["process"]["terminal"] = true.into();
        assert!(bundle.refused().contains("without setting console socket"));
        bundle.config["process"]["terminal"] = false.into();
        bundle.write();
        let args = ["create", "--console-socket", "/x", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id];
        assert!(bed.refused(&args).contains("cannot use console socket"));
    });
}
