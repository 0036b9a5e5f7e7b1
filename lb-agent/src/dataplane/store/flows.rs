//! The flow table, which is an array of buckets, flow by flow.

use std::io;

use lb_common::flow_table::{Place, WAYS};
use lb_common::{Bucket, Flow, FlowKey, Ip4, Ip6};

use super::{KernelStore, PinnedMap, sys};
use crate::store::{FamilyTables, FlowHashTable, MapStore as _, StoreError};

impl KernelStore {
    /// Calls `take` with every flow.
    pub fn for_each_flow<F: FamilyTables>(
        &self,
        take: &mut dyn FnMut(FlowKey<F::Addr>, Flow<F::Addr>),
    ) -> Result<(), StoreError> {
        self.for_each_row::<F::Flows>(&mut |_, bucket| bucket.flows().for_each(|(key, flow)| take(key, flow)))
    }

    /// The flow of a key.
    pub fn flow<F: FamilyTables>(&self, key: &FlowKey<F::Addr>) -> Result<Option<Flow<F::Addr>>, StoreError> {
        let Some(Place { bucket, .. }) = self.place::<F>(key)? else {
            return Ok(None);
        };
        let bucket = self.some_rows::<F::Flows>(bucket, 1)?;
        let flows = bucket.iter().flat_map(|bucket| bucket.flows());
        Ok(flows
            .into_iter()
            .find(|(there, _)| there == key)
            .map(|(_, flow)| flow))
    }

    /// Puts a flow in, as a program would. For tables that no program writes meanwhile.
    pub fn put_flow<F: FamilyTables>(
        &mut self,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
    ) -> Result<(), StoreError> {
        let Some(Place { bucket: index, tag }) = self.place::<F>(key)? else {
            return Ok(());
        };
        let tags = self.some_rows::<F::FlowTags>(index, 1)?;
        let buckets = self.some_rows::<F::Flows>(index, 1)?;
        for (mut tags, mut bucket) in tags.into_iter().zip(buckets) {
            bucket.put(&mut tags, tag, *key, *flow);
            self.set::<F::Flows>(&index, &bucket)?;
            self.set::<F::FlowTags>(&index, &tags)?;
        }
        Ok(())
    }

    /// Where a flow belongs; nowhere while nobody has said how many buckets there are.
    fn place<F: FamilyTables>(&self, key: &FlowKey<F::Addr>) -> Result<Option<Place>, StoreError> {
        let hash = self.some_rows::<FlowHashTable>(0, 1)?.pop();
        let place = hash.map(|hash| key.place(&hash));
        let rows = self.capacity::<F::Flows>()?;
        Ok(place.filter(|place| (place.bucket as usize) < rows))
    }
}

impl PinnedMap {
    /// How many flows a flow table has, and how many there is room for.
    pub fn flows(&self) -> io::Result<(usize, u32)> {
        let mut flows = 0;
        self.for_each_row(|_, bucket| {
            let four = sys::from_bytes::<Bucket<Ip4>>(bucket).map(|bucket| bucket.flows().count());
            let six = || sys::from_bytes::<Bucket<Ip6>>(bucket).map(|bucket| bucket.flows().count());
            flows += four.or_else(six).unwrap_or_default();
        })?;
        Ok((flows, self.capacity().saturating_mul(WAYS as u32)))
    }
}
