//! The memory of tables whose entries have gone.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Empty places that a table may keep whatever it holds.
const FREE: usize = 64;

/// After a removal: gives memory back when only a quarter of it is in use. What it leaves is twice what is
/// in use, so that a table is moved once for as many removals as it keeps entries.
pub fn spare<K: Eq + Hash, V, S: BuildHasher>(table: &mut HashMap<K, V, S>) {
    if table.capacity() > 4 * table.len() + FREE {
        table.shrink_to(2 * table.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_back_what_its_entries_took() {
        let mut table: HashMap<u32, [u8; 64]> = (0..5_000).map(|n| (n, [0; 64])).collect();
        for n in 10..5_000 {
            table.remove(&n);
            spare(&mut table);
            assert!(table.capacity() <= 4 * table.len() + FREE);
        }
        assert!((0..10).all(|n| table.contains_key(&n)) && table.len() == 10);
        // It does not move for every entry that comes and goes.
        let before = table.capacity();
        table.insert(10, [0; 64]);
        table.remove(&10);
        spare(&mut table);
        assert_eq!(table.capacity(), before);
    }
}
