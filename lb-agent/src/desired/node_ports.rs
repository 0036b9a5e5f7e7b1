//! At which of the node's own addresses NodePorts listen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

use crate::model::{IpFamily, IpPrefix};

/// What processes of the node call it.
pub(super) const LOCALHOST: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// At which of the node's own addresses NodePorts listen (`--nodeport-addresses`, as kube-proxy's flag of this name).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// At the node's primary addresses.
    pub primary: bool,
    /// At localhost, for the node's own processes (KEP-6032).
    pub localhost: bool,
    /// At addresses in these prefixes. When there are prefixes, but none of a family, at all addresses of that family, as
    /// with kube-proxy. Localhost is none of them.
    pub prefixes: Vec<IpPrefix>,
}

/// One word of the flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortWord {
    /// `primary`.
    Primary,
    /// `localhost`.
    Localhost,
    /// `all`.
    All,
    /// A prefix.
    Prefix(IpPrefix),
}

/// No word of the flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("use primary, localhost, all, or prefixes such as 192.0.2.0/24")]
pub struct NoNodePortWord;

impl NodePortAddresses {
    /// Whether NodePorts listen at an address of the node, other than localhost. `primary`: it is one of the primary ones.
    pub fn listens(&self, ip: IpAddr, primary: bool) -> bool {
        if self.primary && primary {
            return true;
        }
        let mut of_family = self
            .prefixes
            .iter()
            .filter(|prefix| prefix.family() == IpFamily::of(ip))
            .peekable();
        if of_family.peek().is_none() {
            return !self.primary && !self.prefixes.is_empty();
        }
        of_family.any(|prefix| prefix.contains(ip))
    }

    /// Whether every address of a family is meant, whichever the node has or gets.
    pub fn is_everywhere(&self, family: IpFamily) -> bool {
        let mut of_family = self
            .prefixes
            .iter()
            .filter(|prefix| prefix.family() == family)
            .peekable();
        if of_family.peek().is_none() {
            return !self.primary && !self.prefixes.is_empty();
        }
        of_family.any(|prefix| prefix.mask().is_unspecified())
    }
}

impl Default for NodePortAddresses {
    fn default() -> Self {
        Self {
            primary: true,
            localhost: true,
            prefixes: Vec::new(),
        }
    }
}

impl FromIterator<NodePortWord> for NodePortAddresses {
    /// Without any word, the default.
    fn from_iter<T: IntoIterator<Item = NodePortWord>>(words: T) -> Self {
        let mut words = words.into_iter().peekable();
        if words.peek().is_none() {
            return Self::default();
        }
        let mut found = Self {
            primary: false,
            localhost: false,
            prefixes: Vec::new(),
        };
        for word in words {
            match word {
                NodePortWord::Primary => found.primary = true,
                NodePortWord::Localhost => found.localhost = true,
                NodePortWord::All => {
                    let all = LOCALHOST.into_iter().filter_map(|ip| IpPrefix::new(ip, 0));
                    found.prefixes.extend(all);
                    found.localhost = true;
                }
                NodePortWord::Prefix(prefix) => {
                    found.localhost |= LOCALHOST.iter().any(|ip| prefix.contains(*ip));
                    found.prefixes.push(prefix);
                }
            }
        }
        found
    }
}

impl FromStr for NodePortWord {
    type Err = NoNodePortWord;

    fn from_str(text: &str) -> Result<Self, NoNodePortWord> {
        Ok(match text.trim() {
            "primary" => Self::Primary,
            "localhost" => Self::Localhost,
            "all" => Self::All,
            other => Self::Prefix(other.parse().map_err(|_| NoNodePortWord)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares at which of its addresses a node's NodePorts listen: one of each family is primary.
    #[track_caller]
    fn check(flag: &str, listening: &str, localhost: bool) {
        let words = flag.split(',').filter(|word| !word.is_empty());
        let addresses: NodePortAddresses = words.map(|word| word.parse::<NodePortWord>().unwrap()).collect();
        let all = [
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("10.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db8:1::1", false),
        ];
        let found = all
            .into_iter()
            .filter(|(ip, primary)| addresses.listens(ip.parse().unwrap(), *primary));
        let found: Vec<_> = found.map(|(ip, _)| ip).collect();
        assert_eq!(found.join(" "), listening, "{flag}");
        assert_eq!(addresses.localhost, localhost, "{flag}");
    }

    #[test]
    fn everywhere_is_what_matches_all_addresses_of_a_family() {
        let cases = [
            ("", [false, false]),
            ("primary", [false, false]),
            ("localhost", [false, false]),
            ("all", [true, true]),
            ("primary,0.0.0.0/0", [true, false]),
            ("192.0.2.0/24", [false, true]),
            ("192.0.2.0/24,0.0.0.0/0", [true, true]),
            ("primary,192.0.2.0/24", [false, false]),
            ("192.0.2.0/24,2001:db8::/32", [false, false]),
        ];
        for (flag, expected) in cases {
            let words = flag.split(',').filter(|word| !word.is_empty());
            let addresses: NodePortAddresses =
                words.map(|word| word.parse::<NodePortWord>().unwrap()).collect();
            let found = [IpFamily::V4, IpFamily::V6].map(|family| addresses.is_everywhere(family));
            assert_eq!(found, expected, "{flag}");
        }
    }

    #[test]
    fn words_and_prefixes_say_where_node_ports_listen() {
        check("", "192.0.2.1 2001:db8::1", true);
        check("primary", "192.0.2.1 2001:db8::1", false);
        check("primary,localhost", "192.0.2.1 2001:db8::1", true);
        check(
            "all",
            "192.0.2.1 192.0.2.2 10.0.0.1 2001:db8::1 2001:db8:1::1",
            true,
        );
        check("localhost", "", true);
        check(
            "192.0.2.0/24,2001:db8::/48",
            "192.0.2.1 192.0.2.2 2001:db8::1",
            false,
        );
        check("primary,10.0.0.0/8", "192.0.2.1 10.0.0.1 2001:db8::1", false);
    }

    #[test]
    fn without_a_prefix_of_a_family_all_its_addresses_are_meant() {
        check("192.0.2.2/32", "192.0.2.2 2001:db8::1 2001:db8:1::1", false);
        check(
            "2001:db8:1::/64",
            "192.0.2.1 192.0.2.2 10.0.0.1 2001:db8:1::1",
            false,
        );
    }

    #[test]
    fn prefixes_with_localhost_mean_localhost_too() {
        check("127.0.0.0/8,::/0", "2001:db8::1 2001:db8:1::1", true);
    }

    #[test]
    fn other_words_are_refused() {
        for word in ["Primary", "192.0.2.1", "192.0.2.0/33", ""] {
            assert_eq!(word.parse::<NodePortWord>(), Err(NoNodePortWord), "{word}");
        }
    }
}
