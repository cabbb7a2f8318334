//! Giving back what only a start needed: processes of ours lie idle beside every container.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Freed heap, and the mapped pages of the program itself, which come back from the page cache when they are needed.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointers and gives back only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
    let Ok(inode) = fs::metadata("/proc/self/exe").map(|meta| meta.ino().to_string()) else { return };
    for line in fs::read_to_string("/proc/self/maps").unwrap_or_default().lines() {
        if let Some((start, length)) = clean_range(line, &inode) {
            // SAFETY: the range is mapped from the program's file and has never been writable, so each page is the
            // file's and is the same when it is read again.
            let _ = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
    }
}

/// Start and length, if it is code or constants of the file with this inode. What the loader has relocated is mapped
/// read-only too, but never from the file's beginning.
fn clean_range(line: &str, inode: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let is_clean = permissions == "r-xp" || permissions == "r--p" && offset.bytes().all(|byte| byte == b'0');
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    (is_clean && fields.nth(1) == Some(inode)).then_some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_as_in_the_file_is_given_back() {
        let line = |permissions: &str, offset: &str, inode: u32| {
            format!("1000-3000 {permissions} {offset} fe:00 {inode}    /usr/bin/stack")
        };
        let clean = |permissions, offset, inode| clean_range(&line(permissions, offset, inode), "7");
        assert_eq!(clean("r-xp", "005ce000", 7), Some((0x1000, 0x2000)));
        assert_eq!(clean("r--p", "00000000", 7), Some((0x1000, 0x2000)));
        for (permissions, offset, inode) in
            [("r--p", "01927000", 7), ("rw-p", "00000000", 7), ("rw-p", "01a00000", 7), ("r-xp", "0", 8)]
        {
            assert_eq!(clean(permissions, offset, inode), None, "{permissions} {offset} {inode}");
        }
    }

    #[test]
    fn everything_still_works_after_it() {
        let before: Vec<String> = (0..1000).map(|number| format!("{number}")).collect();
        trim();
        assert_eq!(before, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>());
    }
}
