//! Where XDP is tried, how, and why not.
//!
//! What keeps a device from XDP outlives the agent as a name in the pin folder, so that `lb-agent status` can tell it.

use std::fmt;
use std::io;
use std::str::FromStr;

/// What `--xdp` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpChoice {
    /// Native where a network card is behind the device and its driver takes it; elsewhere TC alone.
    #[default]
    Auto,
    /// Native wherever a driver takes it.
    Native,
    /// In the network stack, with any driver. Slower than TC alone; for tests.
    Generic,
    /// TC alone.
    Off,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

/// Why an uplink is left to TC alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoXdp {
    /// `--xdp=off`.
    Off,
    /// Its packets have no Ethernet header.
    Headerless,
    /// Its packets are met on a lower device.
    Stacked,
    /// It is a port of a bridge, whose hardware address packets have.
    BridgePort,
    /// Behind it is no network card: packets may come with checksums that are yet to be filled in.
    Virtual,
    /// There are VLANs upon it.
    Vlans,
    /// Somebody else's program is there.
    Foreign,
    /// The kernel did not load the program.
    NotLoaded,
    /// The driver refused the program, with this error number.
    Refused(i32),
}

/// How XDP is attached at an uplink, or why it is not.
pub type XdpState = Result<XdpMode, NoXdp>;

impl XdpMode {
    /// The word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl NoXdp {
    /// Those without a number.
    const PLAIN: [Self; 8] = [
        Self::Off,
        Self::Headerless,
        Self::Stacked,
        Self::BridgePort,
        Self::Virtual,
        Self::Vlans,
        Self::Foreign,
        Self::NotLoaded,
    ];
    /// What the code of [`Self::Refused`] begins with.
    const REFUSED: &str = "refused-";

    /// Whether it counts only while nobody asks for XDP.
    const fn can_be_forced(self) -> bool {
        matches!(self, Self::Virtual | Self::Vlans)
    }

    /// A short name without spaces and dots.
    pub fn code(self) -> String {
        match self {
            Self::Off => "off",
            Self::Headerless => "no-ethernet",
            Self::Stacked => "stacked",
            Self::BridgePort => "bridge-port",
            Self::Virtual => "virtual",
            Self::Vlans => "vlans",
            Self::Foreign => "foreign",
            Self::NotLoaded => "not-loaded",
            Self::Refused(error) => return format!("{}{error}", Self::REFUSED),
        }
        .to_owned()
    }
}

impl FromStr for NoXdp {
    type Err = ();

    fn from_str(code: &str) -> Result<Self, ()> {
        let plain = Self::PLAIN.into_iter().find(|reason| reason.code() == code);
        let refused = || {
            let error = code.strip_prefix(Self::REFUSED)?;
            error.parse().ok().map(Self::Refused)
        };
        plain.or_else(refused).ok_or(())
    }
}

impl fmt::Display for NoXdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Off => "switched off by --xdp",
            Self::Headerless => "packets without Ethernet header",
            Self::Stacked => "packets are met on a lower device",
            Self::BridgePort => "port of a bridge",
            Self::Virtual => "no network card behind it; --xdp=native forces it",
            Self::Vlans => "VLANs upon it; --xdp=native forces it",
            Self::Foreign => "another XDP program is attached",
            Self::NotLoaded => "the kernel did not load the program; the agent's log has the reason",
            Self::Refused(error) => {
                return write!(
                    f,
                    "the driver refuses it: {}",
                    io::Error::from_raw_os_error(*error)
                );
            }
        };
        f.write_str(text)
    }
}

impl XdpChoice {
    /// How XDP is to be tried at an uplink that `reasons` speak against, or why not.
    pub fn plan(self, reasons: &[NoXdp]) -> XdpState {
        let counts = |reason: &&NoXdp| self == Self::Auto || !reason.can_be_forced();
        match (self, reasons.iter().find(counts)) {
            (Self::Off, _) => Err(NoXdp::Off),
            (_, Some(reason)) => Err(*reason),
            (Self::Auto | Self::Native, None) => Ok(XdpMode::Native),
            (Self::Generic, None) => Ok(XdpMode::Generic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_back_and_fit_a_pin_folder() {
        for reason in NoXdp::PLAIN.into_iter().chain([NoXdp::Refused(95)]) {
            assert_eq!(reason.code().parse(), Ok(reason));
            assert!(!reason.code().contains(['.', '/', ' ']), "{reason:?}");
        }
        for code in ["", "refused-", "refused-x", "nonsense"] {
            assert_eq!(code.parse::<NoXdp>(), Err(()), "{code}");
        }
    }

    #[test]
    fn auto_takes_cards_alone() {
        let auto = |reasons: &[NoXdp]| XdpChoice::Auto.plan(reasons);
        assert_eq!(auto(&[]), Ok(XdpMode::Native));
        assert_eq!(auto(&[NoXdp::Virtual]), Err(NoXdp::Virtual));
        assert_eq!(auto(&[NoXdp::Vlans]), Err(NoXdp::Vlans));
    }

    #[test]
    fn native_and_generic_force_what_can_be_forced() {
        let forced = [NoXdp::Virtual, NoXdp::Vlans];
        assert_eq!(XdpChoice::Native.plan(&forced), Ok(XdpMode::Native));
        assert_eq!(XdpChoice::Generic.plan(&forced), Ok(XdpMode::Generic));
        assert_eq!(XdpChoice::Off.plan(&[]), Err(NoXdp::Off));
        for reason in [NoXdp::Headerless, NoXdp::Stacked, NoXdp::BridgePort] {
            let reasons = [NoXdp::Virtual, reason];
            assert_eq!(XdpChoice::Native.plan(&reasons), Err(reason));
            assert_eq!(XdpChoice::Generic.plan(&reasons), Err(reason));
        }
    }
}
