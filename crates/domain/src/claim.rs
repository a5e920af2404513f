//! What a job needs, what a runner has, and how the one is packed into the other.

/// What one job needs while it runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub gpus: i64,
    /// Over 1: that many whole nodes for itself.
    pub nodes: i64,
    pub runtime_seconds: i64,
}

/// What a runner has free: per node, and how many nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capacity {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub gpus: i64,
    pub nodes: i64,
    /// How long it stays; `i64::MAX` if for ever.
    pub seconds_left: i64,
}

/// A runner's capacity while a claim is packed into it, by torc's rule (torc 1.0.0,
/// `ClaimPackingState`): jobs of one node share what is left of the nodes that no job has for
/// itself; a job of several nodes takes whole ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packing {
    capacity: Capacity,
    cpus: i64,
    memory_bytes: i64,
    gpus: i64,
    exclusive_nodes: i64,
}

impl Packing {
    pub fn new(capacity: Capacity) -> Packing {
        let capacity = Capacity { nodes: capacity.nodes.max(1), ..capacity };
        Packing { capacity, cpus: 0, memory_bytes: 0, gpus: 0, exclusive_nodes: 0 }
    }

    /// Whether such a job fits into what is left.
    pub fn fits(&self, needs: &Needs) -> bool {
        let all = &self.capacity;
        let alone = needs.cpus <= all.cpus
            && needs.memory_bytes <= all.memory_bytes
            && needs.gpus <= all.gpus
            && needs.nodes <= all.nodes
            && needs.runtime_seconds <= all.seconds_left;
        if !alone {
            return false;
        }
        if needs.nodes > 1 {
            let shared = all.nodes - self.exclusive_nodes - needs.nodes;
            shared >= 0
                && self.cpus <= shared.saturating_mul(all.cpus)
                && self.memory_bytes <= shared.saturating_mul(all.memory_bytes)
                && self.gpus <= shared.saturating_mul(all.gpus)
        } else {
            let shared = all.nodes - self.exclusive_nodes;
            self.cpus + needs.cpus <= shared.saturating_mul(all.cpus)
                && self.memory_bytes.saturating_add(needs.memory_bytes) <= shared.saturating_mul(all.memory_bytes)
                && self.gpus + needs.gpus <= shared.saturating_mul(all.gpus)
        }
    }

    pub fn take(&mut self, needs: &Needs) {
        if needs.nodes > 1 {
            self.exclusive_nodes += needs.nodes;
        } else {
            self.cpus += needs.cpus;
            self.memory_bytes = self.memory_bytes.saturating_add(needs.memory_bytes);
            self.gpus += needs.gpus;
        }
    }
}
