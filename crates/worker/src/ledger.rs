//! What is free on this machine, and what has been asked for already.

use std::collections::{HashMap, VecDeque};

use forebay_wire::ComputeNodesResources;
use forebay_wire::units::bytes_to_gb;

use crate::detect::Amount;

/// The most jobs of one claim.
const LIMIT_MAX: i64 = 1000;

/// Under this much free memory nothing is claimed, as in torc.
const MEMORY_MIN_BYTES: i64 = (1 << 30) / 10;

/// How jobs are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// What fits into free processors, memory and GPUs.
    ByResources,
    /// The next ones in order, so many at a time, whatever they need.
    ByCount { jobs_max: i64 },
}

/// Keeps the books of one worker. A claim in flight has its amount set aside, so that two
/// claims at once never ask for the same processor.
#[derive(Debug)]
pub struct Ledger {
    packing: Packing,
    free: Amount,
    free_slots: i64,
    devices: VecDeque<String>,
    all_devices: Vec<String>,
    /// The next device to be shared once all are taken.
    shared: usize,
    owned: HashMap<u64, Vec<String>>,
}

/// What a claim asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub limit: i64,
    /// Absent: by order.
    pub amount: Option<Amount>,
}

impl Ask {
    /// The amount as the server wants it.
    pub fn resources(
        &self,
        labels: Option<Vec<String>>,
        scheduler_config_id: Option<i64>,
    ) -> Option<ComputeNodesResources> {
        self.amount.map(|amount| ComputeNodesResources {
            id: None,
            num_cpus: amount.cpus,
            memory_gb: bytes_to_gb(amount.memory_bytes),
            num_gpus: amount.gpus,
            num_nodes: 1,
            time_limit: None,
            scheduler_config_id,
            labels,
        })
    }
}

impl Ledger {
    /// The books of a machine that has `total` and these GPUs.
    pub fn new(total: Amount, devices: Vec<String>, packing: Packing) -> Self {
        let free_slots = match packing {
            Packing::ByResources => i64::MAX / 2,
            Packing::ByCount { jobs_max } => jobs_max,
        };
        Self {
            packing,
            free: total,
            free_slots,
            devices: devices.iter().cloned().collect(),
            all_devices: devices,
            shared: 0,
            owned: HashMap::new(),
        }
    }

    /// Sets aside all that is free, to ask for it. `None` if that is nothing.
    pub fn ask(&mut self) -> Option<Ask> {
        let ask = match self.packing {
            Packing::ByResources if self.free.cpus < 1 || self.free.memory_bytes < MEMORY_MIN_BYTES => return None,
            Packing::ByResources => Ask {
                limit: self.free.cpus.min(LIMIT_MAX),
                amount: Some(Amount { gpus: self.free.gpus.max(0), ..self.free }),
            },
            Packing::ByCount { .. } if self.free_slots < 1 => return None,
            Packing::ByCount { .. } => Ask { limit: self.free_slots.min(LIMIT_MAX), amount: None },
        };
        self.free_slots -= ask.limit;
        self.free -= ask.amount.unwrap_or_default();
        Some(ask)
    }

    /// Ends what [`ask`](Self::ask) set aside.
    pub fn answered(&mut self, ask: Ask) {
        self.free_slots += ask.limit;
        self.free += ask.amount.unwrap_or_default();
    }

    /// Books a job.
    pub fn take(&mut self, needs: Amount) {
        self.free_slots -= 1;
        self.free -= needs;
    }

    /// Ends the booking of a job.
    pub fn give_back(&mut self, needs: Amount) {
        self.free_slots += 1;
        self.free += needs;
    }

    /// The GPUs for the process `key`, as the value of `CUDA_VISIBLE_DEVICES`. When fewer are
    /// free than it needs, which happens when jobs are claimed by count, it shares some.
    pub fn take_devices(&mut self, key: u64, count: i64) -> Option<String> {
        let count = usize::try_from(count).unwrap_or(0).min(self.all_devices.len());
        if count == 0 {
            return None;
        }
        if self.devices.len() >= count {
            let own: Vec<String> = self.devices.drain(..count).collect();
            let visible = own.join(",");
            self.owned.insert(key, own);
            return Some(visible);
        }
        let shared = (0..count).map(|n| self.all_devices[(self.shared + n) % self.all_devices.len()].as_str());
        let visible = shared.collect::<Vec<_>>().join(",");
        self.shared += count;
        Some(visible)
    }

    /// Takes back the GPUs of the process `key`.
    pub fn give_devices_back(&mut self, key: u64) {
        self.devices.extend(self.owned.remove(&key).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: i64 = 1 << 30;

    fn amount(cpus: i64, gib: i64, gpus: i64) -> Amount {
        Amount { cpus, memory_bytes: gib * GIB, gpus }
    }

    #[test]
    fn two_claims_never_ask_for_the_same() {
        let mut ledger = Ledger::new(amount(4, 8, 0), vec![], Packing::ByResources);
        ledger.take(amount(1, 2, 0));
        let first = ledger.ask().unwrap();
        assert_eq!((first.limit, first.amount), (3, Some(amount(3, 6, 0))));
        assert_eq!(ledger.ask(), None);
        ledger.give_back(amount(1, 2, 0));
        assert_eq!(ledger.ask().unwrap().amount, Some(amount(1, 2, 0)));
        ledger.answered(first);
        assert_eq!(ledger.ask().unwrap().amount, Some(amount(3, 6, 0)));
    }

    #[test]
    fn by_count_only_slots_are_counted() {
        let mut ledger = Ledger::new(amount(1, 1, 0), vec![], Packing::ByCount { jobs_max: 2 });
        ledger.take(amount(64, 512, 0));
        assert_eq!(ledger.ask(), Some(Ask { limit: 1, amount: None }));
        assert_eq!(ledger.ask(), None);
    }

    #[test]
    fn gpus_are_owned_while_they_last_and_shared_after_that() {
        let devices = ["0", "1"].map(str::to_owned).to_vec();
        let mut ledger = Ledger::new(amount(4, 8, 2), devices, Packing::ByCount { jobs_max: 9 });
        assert_eq!(ledger.take_devices(1, 2).as_deref(), Some("0,1"));
        assert_eq!(ledger.take_devices(2, 1).as_deref(), Some("0"));
        assert_eq!(ledger.take_devices(3, 9).as_deref(), Some("1,0"));
        ledger.give_devices_back(2);
        ledger.give_devices_back(1);
        assert_eq!(ledger.take_devices(4, 1).as_deref(), Some("0"));
        assert_eq!(ledger.take_devices(5, 0), None);
    }

    #[test]
    fn a_full_machine_asks_for_nothing() {
        let mut ledger = Ledger::new(amount(2, 1, 0), vec![], Packing::ByResources);
        ledger.take(Amount { cpus: 1, memory_bytes: GIB, gpus: 0 });
        assert_eq!(ledger.ask(), None);
    }
}
