//! Can the data plane work here at all? Asked before anything is touched.

use std::fs;
use std::path::Path;

use super::DataplaneError;

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// The oldest kernel that the programs are made for.
const FLOOR: (u32, u32) = (5, 15);

/// A capability's number (`linux/capability.h`) and name.
type Capability = (u32, &'static str);
const NET_ADMIN: Capability = (12, "CAP_NET_ADMIN");
const SYS_ADMIN: Capability = (21, "CAP_SYS_ADMIN");

/// Checks privileges, kernel version and BTF.
pub fn preflight() -> Result<(), DataplaneError> {
    privileges()?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if version(&release).is_some_and(|version| version < FLOOR) {
        return Err(DataplaneError::KernelTooOld {
            release: release.trim().to_owned(),
        });
    }
    if !Path::new(BTF).exists() {
        return Err(DataplaneError::NoBtf { path: BTF.into() });
    }
    Ok(())
}

/// Checks that this process may use BPF, bpffs and netlink.
pub fn privileges() -> Result<(), DataplaneError> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(DataplaneError::Unprivileged {
            missing: missing.join(", "),
        })
    }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    [NET_ADMIN, SYS_ADMIN]
        .into_iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| name)
        .collect()
}

/// Major and minor version of a release such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(version("5.15.0-91-generic\n"), Some((5, 15)));
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("unknown"), None);
        assert!(version("5.4.0").is_some_and(|version| version < FLOOR));
    }

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(
            missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"),
            Vec::<&str>::new()
        );
        assert_eq!(
            missing_capabilities("CapEff:\t0000000000000000\n"),
            ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]
        );
        assert_eq!(
            missing_capabilities("CapEff:\t0000000000200000\n"),
            ["CAP_NET_ADMIN"]
        );
    }
}
