//! The key that both gateways share.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bytes of a key, at least and at most.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=1024;

/// Reads the key from a file; white space at its end does not count.
///
/// # Errors
/// What is wrong with it, and how to mend that.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let make = format!(
        "make it on one gateway with `(umask 077; head -c 32 /dev/urandom | base64 > {shown})`, and copy it to the other"
    );
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {shown} with the key of the pair (sync.key-file): {make}"),
        _ => format!("cannot read the key of the pair, {shown}: {error}"),
    };
    let meta = std::fs::metadata(path).map_err(failed)?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a file (sync.key-file): {make}"));
    }
    let mode = meta.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "other users may use the key of the pair, {shown} (mode {mode:03o}): chmod 600 {shown}; if they may have read \
             it, make another key"
        ));
    }
    if meta.len() > *LENGTH.end() as u64 * 2 {
        return Err(format!("{shown} is too long for a key: {} bytes, at most {}", meta.len(), LENGTH.end()));
    }
    let mut key = std::fs::read(path).map_err(failed)?;
    key.truncate(key.trim_ascii_end().len());
    if !LENGTH.contains(&key.len()) {
        return Err(format!(
            "the key of the pair, {shown}, has {} bytes: it needs {} to {}; {make}",
            key.len(),
            LENGTH.start(),
            LENGTH.end()
        ));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    #[test]
    fn a_key_is_read_without_its_newline_and_only_if_nobody_else_may() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sync.key");
        assert!(read(&path).unwrap_err().contains("there is no file"));
        let write = |text: &[u8], mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        write(b"0123456789abcdef\r\n", 0o600);
        assert_eq!(read(&path).unwrap(), b"0123456789abcdef");
        write(b"0123456789abcdef", 0o640);
        assert!(read(&path).unwrap_err().contains("mode 640"));
        write(b"0123456789abcde \n\n", 0o400);
        assert!(read(&path).unwrap_err().contains("has 15 bytes: it needs 16 to 1024"));
        write(&[b'x'; 2049], 0o600);
        assert!(read(&path).unwrap_err().contains("too long"));
        assert!(read(dir.path()).unwrap_err().contains("is not a file"));
    }
}
