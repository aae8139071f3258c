//! Where a server's data lives and under which account it runs. Creates directories and hands them
//! over; never touches what is inside them.

use std::fs::{self, DirBuilder};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// For data that an unprivileged account must reach when the state directory is out of its reach.
const SHARED_ROOT: &str = "/var/lib/order-stack";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The system account `name`, if this machine has it.
pub(crate) fn account(name: &str) -> Option<Account> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| {
        match fields.as_slice() {
            [user, _, uid, gid, ..] if *user == name => {
                Some(Account { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
            }
            _ => None,
        }
    })
}

/// The directory for one server's data: below the state directory, unless the account cannot get
/// there (a state directory under `/root`, say).
pub(crate) fn data_dir(state_dir: &Path, server: &str, account: Option<&Account>) -> PathBuf {
    let beside = state_dir.join(server);
    match account {
        Some(account) if !can_reach(state_dir, account) => {
            let mut hasher = DefaultHasher::new();
            state_dir.hash(&mut hasher);
            Path::new(SHARED_ROOT).join(format!("{:016x}", hasher.finish())).join(server)
        }
        _ => beside,
    }
}

fn can_reach(directory: &Path, account: &Account) -> bool {
    directory.ancestors().all(|ancestor| {
        fs::metadata(ancestor).is_ok_and(|meta| {
            let class = match () {
                () if meta.uid() == account.uid => 0o100,
                () if meta.gid() == account.gid => 0o010,
                () => 0o001,
            };
            meta.mode() & class != 0
        })
    })
}

/// Creates `directory` for the account alone; its parents may be passed through but not listed.
pub(crate) fn create_private(directory: &Path, account: Option<&Account>) -> Result<()> {
    let make = || -> std::io::Result<()> {
        if let Some(parent) = directory.parent() {
            DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(_) if directory.is_dir() => Ok(()),
            made => made,
        }
    };
    // Another stack's `down` may remove the shared root just while it is empty.
    let mut made = make();
    for _ in 0..10 {
        match &made {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => made = make(),
            _ => break,
        }
    }
    made.with_context(|| format!("create {}", directory.display()))?;
    give(directory, account)
}

pub(crate) fn give(path: &Path, account: Option<&Account>) -> Result<()> {
    let Some(account) = account else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
        .with_context(|| format!("hand {} to its account", path.display()))
}

/// A file that only its owner may read, complete or absent: written beside and renamed.
pub(crate) fn write_private(path: &Path, text: &str, account: Option<&Account>) -> Result<()> {
    let draft = path.with_extension("draft");
    let write = || -> std::io::Result<()> {
        if draft.exists() {
            fs::remove_file(&draft)?;
        }
        let mut options = fs::File::options();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.write(true).create_new(true).open(&draft)?;
        std::io::Write::write_all(&mut file, text.as_bytes())
    };
    write().with_context(|| format!("write {}", path.display()))?;
    give(&draft, account)?;
    fs::rename(&draft, path).with_context(|| format!("write {}", path.display()))
}

/// Removes a server's data, and the directories above it that exist for nothing else.
pub(crate) fn remove(data_dir: &Path) -> Result<()> {
    match fs::remove_dir_all(data_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", data_dir.display()));
        }
        _ => {}
    }
    if data_dir.starts_with(SHARED_ROOT) {
        let parents = data_dir.ancestors().skip(1);
        for parent in parents.take_while(|parent| parent.starts_with(SHARED_ROOT)) {
            // Another stack may live here: a directory in use is not empty and stays.
            if fs::remove_dir(parent).is_err() {
                break;
            }
        }
    }
    Ok(())
}

/// Others may pass through the state directory, because a server's account has to; the files that
/// matter are private one by one.
pub(crate) fn create_state_dir(directory: &Path) -> Result<()> {
    let mode = if is_root() { 0o711 } else { 0o700 };
    fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(directory, permissions)
        .with_context(|| format!("set the mode of {}", directory.display()))
}
