//! The keys that leave a terminal and let its program run on.

use crate::failure::{Failure, Result};

const DEFAULT: &str = "ctrl-p,ctrl-q";

/// Finds the sequence in what is typed.
#[derive(Debug)]
pub(super) struct DetachKeys {
    keys: Vec<u8>,
    /// So many of them were typed last and are held back.
    held: usize,
}

/// What to do with what was typed.
#[derive(Debug, PartialEq)]
pub(super) struct Typed {
    /// To be passed on.
    pub(super) bytes: Vec<u8>,
    pub(super) detaches: bool,
}

impl DetachKeys {
    /// Those that are asked for, else those of Docker's configuration, else `ctrl-p,ctrl-q`.
    ///
    /// # Errors
    /// A key that there is none of.
    pub(super) fn chosen(asked: Option<&str>) -> Result<Self> {
        let configured = || stack_runtime::image::configured("detachKeys");
        Self::parse(&asked.map(str::to_owned).or_else(configured).unwrap_or_else(|| DEFAULT.into()))
    }

    /// Keys separated by commas: one ASCII character, or `ctrl-` and a letter or one of `@ [ \ ] ^ _`.
    fn parse(text: &str) -> Result<Self> {
        let invalid = || Failure::usage(format!("invalid detach keys ({text}) provided"));
        let key = |word: &str| match (word.strip_prefix("ctrl-"), word.as_bytes()) {
            (_, [one]) if one.is_ascii() => Some(*one),
            (Some(letter), _) => match letter.as_bytes() {
                [b'a'..=b'z' | b'@' | b'['..=b'_'] => Some(letter.as_bytes()[0] & 0x1f),
                _ => None,
            },
            _ => None,
        };
        let keys = text.split(',').map(|word| key(word).ok_or_else(invalid)).collect::<Result<Vec<u8>>>()?;
        Ok(Self { keys, held: 0 })
    }

    pub(super) fn take(&mut self, typed: &[u8]) -> Typed {
        let mut bytes = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys[self.held] != *byte && self.held > 0 {
                bytes.extend(&self.keys[..std::mem::take(&mut self.held)]);
            }
            if self.keys[self.held] != *byte {
                bytes.push(*byte);
                continue;
            }
            self.held += 1;
            if self.held == self.keys.len() {
                self.held = 0;
                return Typed { bytes, detaches: true };
            }
        }
        Typed { bytes, detaches: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &str, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(keys).expect("keys");
        let mut all = Vec::new();
        for piece in pieces {
            let Typed { bytes, detaches } = keys.take(piece);
            all.extend(bytes);
            if detaches {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn the_sequence_detaches_whatever_pieces_it_comes_in() {
        assert_eq!(typed(DEFAULT, &[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(typed(DEFAULT, &[b"ab\x10", b"\x11"]), (b"ab".to_vec(), true));
        assert_eq!(typed("a,b", &[b"xab"]), (b"x".to_vec(), true));
    }

    #[test]
    fn what_only_begins_like_it_is_passed_on() {
        assert_eq!(typed(DEFAULT, &[b"\x10", b"x\x10\x10\x11"]), (b"\x10x\x10".to_vec(), true));
        assert_eq!(typed(DEFAULT, &[b"\x11\x10y"]), (b"\x11\x10y".to_vec(), false));
    }

    #[test]
    fn only_keys_that_a_terminal_has_are_taken() {
        assert_eq!(DetachKeys::parse("ctrl-@,ctrl-_,q").expect("keys").keys, [0, 31, b'q']);
        for wrong in ["", "ctrl-", "ctrl-A", "ctrl-1", "ab", "ctrl-p,", "é"] {
            assert!(DetachKeys::parse(wrong).is_err(), "{wrong}");
        }
    }
}
