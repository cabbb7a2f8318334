//! Which boot this is: process ids, start times and numbers of namespaces say something only within one.

use std::fs;
use std::sync::OnceLock;

/// 32 hex digits. Empty where the kernel does not tell; then every boot looks the same.
pub fn id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        id.trim().replace('-', "")
    })
}

/// A number that differs between boots.
pub(crate) fn number() -> u64 {
    u64::from_str_radix(id().get(..16).unwrap_or_default(), 16).unwrap_or_default()
}
