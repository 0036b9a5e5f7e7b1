//! The flow table, flow by flow.

use std::io;

use lb_common::flow_table::{Place, WAYS};
use lb_common::{Flow, FlowKey, FlowRow, Ip4, Ip6};

use super::{KernelStore, PinnedMap, sys};
use crate::store::{FamilyTables, FlowHashTable, MapStore as _, StoreError};

impl KernelStore {
    /// Calls `take` with every flow.
    pub fn for_each_flow<F: FamilyTables>(
        &self,
        take: &mut dyn FnMut(FlowKey<F::Addr>, Flow<F::Addr>),
    ) -> Result<(), StoreError> {
        self.for_each_row::<F::Flows>(&mut |_, row| {
            if row.is_there() {
                take(row.key, row.flow);
            }
        })
    }

    /// The flow of a key.
    pub fn flow<F: FamilyTables>(&self, key: &FlowKey<F::Addr>) -> Result<Option<Flow<F::Addr>>, StoreError> {
        let Some(place) = self.place::<F>(key)? else {
            return Ok(None);
        };
        for way in 0..WAYS {
            let row = self.some_rows::<F::Flows>(place.row(way), 1)?.pop();
            if let Some(row) = row.filter(|row| row.key == *key) {
                return Ok(Some(row.flow));
            }
        }
        Ok(None)
    }

    /// Puts a flow in, as a program would. For tables that no program writes meanwhile.
    pub fn put_flow<F: FamilyTables>(
        &mut self,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
    ) -> Result<(), StoreError> {
        let Some(place) = self.place::<F>(key)? else {
            return Ok(());
        };
        for mut tags in self.some_rows::<F::FlowTags>(place.bucket, 1)? {
            let way = tags.put(place.tag, flow);
            let row = FlowRow {
                key: *key,
                flow: *flow,
            };
            self.set::<F::Flows>(&place.row(way), &row)?;
            self.set::<F::FlowTags>(&place.bucket, &tags)?;
        }
        Ok(())
    }

    /// Where a flow belongs; nowhere while nobody has said how many buckets there are.
    fn place<F: FamilyTables>(&self, key: &FlowKey<F::Addr>) -> Result<Option<Place>, StoreError> {
        let hash = self.some_rows::<FlowHashTable>(0, 1)?.pop();
        let place = hash.map(|hash| key.place(&hash));
        let buckets = self.capacity::<F::FlowTags>()?;
        Ok(place.filter(|place| (place.bucket as usize) < buckets))
    }
}

impl PinnedMap {
    /// How many flows a flow table has.
    pub fn flows(&self) -> io::Result<usize> {
        let mut flows = 0;
        self.for_each_row(|_, row| {
            let four = sys::from_bytes::<FlowRow<Ip4>>(row).map(|row| row.is_there());
            let six = || sys::from_bytes::<FlowRow<Ip6>>(row).map(|row| row.is_there());
            flows += usize::from(four.or_else(six).unwrap_or_default());
        })?;
        Ok(flows)
    }
}
