//! The hash of every ring on which all nodes must agree: the first eight bytes of SHA-1.
//!
//! In: keys that write their own bytes. Out: points for the crate `consistent_hash`, the same in
//! every process and release: the crate hashes keys through `Hash`, which the standard library may
//! change for its own types and which is native-endian for integers, so what is put on a ring
//! implements `Hash` by hand. Pure.

use std::hash::{Hash, Hasher};

use consistent_hash::RingHash;
use sha1::{Digest, Sha1};

/// See the module. A key's points are the hashes of its bytes followed by the point's number in
/// decimal.
#[derive(Debug, Clone, Copy)]
pub struct FixedHash;

impl RingHash for FixedHash {
    fn hash_item<T: Hash>(&self, item: &T) -> u64 {
        let mut hasher = FirstEight::default();
        item.hash(&mut hasher);
        hasher.finish()
    }

    fn hash_vnode<K: Hash>(&self, node_key: &K, vnode_seq: usize) -> u64 {
        let mut hasher = FirstEight::default();
        node_key.hash(&mut hasher);
        hasher.write(vnode_seq.to_string().as_bytes());
        hasher.finish()
    }
}

#[derive(Default)]
struct FirstEight(Sha1);

impl Hasher for FirstEight {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        digest[..8].iter().fold(0, |n, &b| n << 8 | u64::from(b))
    }
}
