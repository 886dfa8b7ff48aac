//! The master key in a file of its own: base64 and a line feed, accessible to its owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{MasterKey, MasterKeyError};
use crate::crypto::random;

/// Far more than a key with white space around it; nobody means a file that is longer.
const MAX_FILE_BYTES: u64 = 1024;

impl MasterKey {
    /// Reads the key from the file at `path`.
    ///
    /// # Errors
    /// [`MasterKeyError::Exposed`] when others have any access to the file, or the group more than to
    /// read it: a Kubernetes secret is mounted so for a pod with an `fsGroup`;
    /// [`MasterKeyError::MalformedFile`]; [`MasterKeyError::File`], also when there is no such file.
    pub fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let failed = |source| MasterKeyError::File { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        if is_exposed(&file).map_err(failed)? {
            return Err(MasterKeyError::Exposed { path: path.to_owned() });
        }
        let malformed = || MasterKeyError::MalformedFile { path: path.to_owned() };
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize));
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(failed)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        Self::from_base64(text).map_err(|_| malformed())
    }

    /// Reads the key from the file at `path`, or puts a new one there when there is none. When
    /// several processes do so at once, all end up with the same key; a crash leaves either no file
    /// or a whole one. The directory has to exist, on a file system with hard links.
    ///
    /// # Errors
    /// As [`MasterKey::load`].
    pub fn load_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        match Self::load(path) {
            Err(error) if error.is_absence() => {}
            loaded => return loaded,
        }
        Self::generate()
            .create(path)
            .map_err(|source| MasterKeyError::File { path: path.to_owned(), source })?;
        // Not the key just made: another process may have been first.
        Self::load(path)
    }

    /// Puts the key into a new file at `path`; leaves one that is there already as it is.
    fn create(&self, path: &Path) -> io::Result<()> {
        let temporary = Temporary::beside(path)?;
        let mut file = &temporary.file;
        file.write_all(self.to_base64().as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        // Unlike a rename, a link never replaces what is there.
        match fs::hard_link(&temporary.path, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            Ok(()) | Err(_) => sync_directory(path),
        }
    }
}

/// A file that is removed when dropped.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn beside(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
        name.push(format!(".{:016x}.new", u64::from_ne_bytes(random::bytes())));
        let path = path.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        Ok(Self { file: options.open(&path)?, path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // At worst a second name of the key stays, as well protected as the first.
        let _ = fs::remove_file(&self.path);
    }
}

fn is_exposed(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o037 != 0)
}

/// Makes the new name survive a power failure.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_created_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identity.db.key");
        assert!(matches!(MasterKey::load(&path), Err(MasterKeyError::File { .. })));
        let created = MasterKey::load_or_create(&path).unwrap();
        assert_eq!(MasterKey::load_or_create(&path).unwrap().to_base64(), created.to_base64());
        assert_eq!(MasterKey::load(&path).unwrap().to_base64(), created.to_base64());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[test]
    fn processes_that_start_at_once_end_up_with_the_same_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let barrier = std::sync::Barrier::new(8);
        let keys: Vec<_> = std::thread::scope(|scope| {
            let start = || {
                barrier.wait();
                MasterKey::load_or_create(&path).unwrap().to_base64()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        MasterKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o660, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = MasterKey::load_or_create(&path).unwrap_err();
            assert!(matches!(error, MasterKeyError::Exposed { .. }), "{mode:o}");
            assert!(error.to_string().contains(&format!("chmod 600 {}", path.display())));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(MasterKey::load(&path).is_ok());
    }

    #[test]
    fn a_file_that_holds_no_key_is_kept_and_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let temporary = Temporary::beside(&path).unwrap();
        fs::hard_link(&temporary.path, &path).unwrap();
        for content in [&b""[..], b"secret", &[0xff; 44], &[b'A'; 4096]] {
            fs::write(&path, content).unwrap();
            let error = MasterKey::load_or_create(&path).unwrap_err();
            assert!(matches!(error, MasterKeyError::MalformedFile { .. }), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}
