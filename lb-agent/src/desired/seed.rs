//! The seed of hashes: the same on all nodes of a cluster, and nobody outside knows it.

use crate::model::World;

/// The Namespace whose UID names the cluster.
const CLUSTER: &str = "kube-system";

/// The seed that the cluster's name gives, if it has one.
pub fn cluster_seed(world: &World) -> Option<u64> {
    let uid = world.namespace(CLUSTER)?.uid.as_deref()?;
    Some(seed_of(uid))
}

/// A seed of any text, never 0 (FNV-1a of 64 bits).
pub fn seed_of(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(1)
}

/// A seed as its row has it: two words, low half first.
pub fn seed_words(seed: u64) -> [u32; 2] {
    let low = seed & u64::from(u32::MAX);
    [low, seed >> u32::BITS].map(|half| u32::try_from(half).unwrap_or_default())
}

/// The seed of a row.
pub fn seed_of_words([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_gives_the_same_seed_everywhere() {
        assert_eq!(
            seed_of("5f1d5a3e-6a53-4bfb-9b07-3c5e2f8f0a11"),
            seed_of("5f1d5a3e-6a53-4bfb-9b07-3c5e2f8f0a11")
        );
        assert_ne!(seed_of("a"), seed_of("b"));
        // The reference value of FNV-1a for "a" is af63dc4c8601ec8c.
        assert_eq!(seed_of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(seed_words(seed_of("a")), [0x8601_ec8c, 0xaf63_dc4c]);
        assert_eq!(seed_of_words(seed_words(u64::MAX - 7)), u64::MAX - 7);
    }
}
