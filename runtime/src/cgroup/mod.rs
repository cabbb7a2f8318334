//! Control groups, version 1 (hybrid) and 2.
//!
//! Every container has a group at the same path `stack/PROJECT/ID` in each hierarchy that is needed.

use std::io;

/// Kills everything in the group, at once.
pub fn kill(_group: &str) -> io::Result<()> {
    Ok(())
}

/// Freezes or thaws everything in the group.
pub fn freeze(_group: &str, _frozen: bool) -> io::Result<()> {
    Ok(())
}

/// Removes the group and everything below it, in every hierarchy; missing is fine.
pub fn remove(_group: &str) -> io::Result<()> {
    Ok(())
}
