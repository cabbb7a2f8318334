//! Terminals: size and controlling terminal.

use rustix::termios::{Winsize, tcsetwinsize};
use std::io;
use std::os::fd::AsFd;

pub fn resize(terminal: impl AsFd, rows: u16, cols: u16) -> io::Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })?)
}
