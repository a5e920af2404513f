//! The lease: the server hears again and again that we live. When it has not for too long it gives
//! what we held to others; once we know, we end what runs here, and go on as another compute node.

use super::*;

use crate::aside::heartbeat;
use crate::launcher::protocol::{Attempt, Command};

/// The status of a refusal that means that our lease is over.
pub(super) const OVER: u16 = 410;

/// So many heartbeats fit into a lease: two may be lost.
const BEATS: u32 = 4;

/// What the server believes of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lease {
    /// It believes in us for ever.
    None,
    /// We live; it is to hear of us then. `asked`: a heartbeat is on its way.
    Held { next: Instant, asked: bool },
    /// We are dead; another compute node is being registered.
    Lost,
}

impl Lease {
    /// A lease that has just begun, if it has a length.
    pub fn begun(length: Option<Duration>, now: Instant) -> Lease {
        length.map_or(Lease::None, |length| Lease::Held { next: now + length / BEATS, asked: false })
    }

    /// When a heartbeat is due.
    pub fn next(self) -> Option<Instant> {
        match self {
            Lease::Held { next, asked: false } => Some(next),
            Lease::None | Lease::Held { asked: true, .. } | Lease::Lost => None,
        }
    }

    pub fn is_held(self) -> bool {
        matches!(self, Lease::Held { .. })
    }

    pub fn is_lost(self) -> bool {
        matches!(self, Lease::Lost)
    }
}

/// Registers a compute node, with a lease if it is to have one.
pub(super) async fn register(
    client: &Client,
    node: &ComputeNodeModel,
    lease: Option<Duration>,
) -> Result<ComputeNodeModel, CallError> {
    let node: ComputeNodeModel = client.post("/compute_nodes", node).await?;
    if let Some(lease) = lease {
        heartbeat(client, node.workflow_id, node.id.unwrap_or_default(), lease, true).await?;
    }
    Ok(node)
}

impl Session<'_> {
    /// Sends a heartbeat if it is time.
    pub(super) fn say_we_live(&mut self, now: Instant) {
        let due = self.lease.next().is_some_and(|next| next <= now);
        let Some(length) = self.options.lease.filter(|_| due) else { return };
        let patience = length / BEATS;
        self.lease = Lease::Held { next: now + patience, asked: true };
        let aside = self.aside.clone();
        self.sides.spawn(async move {
            let late = |_| CallError::Away { why: "no answer in time".to_owned(), reached: true };
            let answer = tokio::time::timeout(patience, aside.heartbeat(length)).await.map_err(late);
            Side::Heartbeat(answer.and_then(|answer| answer))
        });
    }

    pub(super) fn on_heartbeat(&mut self, answer: Result<(), CallError>) {
        if let Lease::Held { asked, .. } = &mut self.lease {
            *asked = false;
        }
        match answer {
            Ok(()) => self.on_back(),
            Err(CallError::Refused { status: OVER, .. }) => self.on_lease_over(),
            Err(CallError::Refused { message, .. }) => self.on_refused(message),
            Err(CallError::Away { why, .. }) => self.on_away(why),
        }
    }

    /// The server has given what we held to others: we end it and say no more of it. What had ended
    /// before is reported; that is refused if somebody is to run it again.
    pub(super) fn on_lease_over(&mut self) {
        if !self.lease.is_held() {
            return;
        }
        // They are about what we held.
        self.sides = JoinSet::new();
        self.give_up.send_replace(true);
        (self.checking, self.reading_needs, self.doubt, self.lull) = (false, 0, None, Lull::Unknown);
        for (_, needs) in std::mem::take(&mut self.held).into_values() {
            self.ledger.give_back(needs.amount);
        }
        let of_script: HashSet<i64> = self.scripts.values().map(|job| job.job_id).collect();
        self.unfinished_business.retain(|job| of_script.contains(job));
        let killed = self.kill_lost();
        self.settle_lost();
        self.tell(Event::LeaseOver { compute_node_id: self.aside.compute_node_id, killed });
        self.register_anew();
    }

    /// Strikes from the journal what neither runs nor is to be reported.
    fn settle_lost(&mut self) {
        let reports = self.in_flight.values().flat_map(|request| &request.reports).chain(&self.outbox);
        let reports = reports.map(|finished| finished.attempt);
        let open: HashSet<Attempt> = reports.chain(self.running.values().map(|running| running.attempt)).collect();
        let run_id = self.aside.run_id;
        let ours = self.ours.iter().map(|&(job_id, attempt_id)| Attempt { job_id, run_id, attempt_id });
        let lost: Vec<Attempt> = ours.filter(|attempt| !open.contains(attempt)).collect();
        self.settle(&lost);
    }

    /// Goes on as another compute node, if there is anything to go on with.
    fn register_anew(&mut self) {
        let dead = ComputeNodeModel { is_active: Some(false), ..self.node.clone() };
        let node = ComputeNodeModel { id: None, start_time: rfc3339(SystemTime::now()), ..self.node.clone() };
        self.be(self.aside.compute_node_id);
        if !self.is_working() {
            self.lease = Lease::None;
            return;
        }
        self.lease = Lease::Lost;
        let (aside, lease) = (self.aside.clone(), self.options.lease);
        self.sides.spawn(async move {
            // A courtesy: the server can do without.
            let path = format!("/compute_nodes/{}", aside.compute_node_id);
            drop(aside.client.put::<ComputeNodeModel>(&path, &dead).await);
            Side::Registered(aside.insist(|| register(&aside.client, &node, lease)).await.map(Box::new))
        });
    }

    pub(super) fn on_registered(&mut self, node: Result<Box<ComputeNodeModel>, CallError>) {
        let node = match node {
            Ok(node) => *node,
            Err(CallError::Refused { message, .. }) => return self.on_refused(message),
            Err(CallError::Away { why, .. }) => return self.on_away(why),
        };
        let compute_node_id = node.id.unwrap_or_default();
        let workflow_id = self.aside.workflow_id;
        self.processes.send(&Command::Registered { workflow_id, compute_node_id });
        self.node = node;
        self.be(compute_node_id);
        self.lease = Lease::begun(self.options.lease, Instant::now());
        self.on_back();
        self.tell(Event::Registered { compute_node_id, run_id: self.aside.run_id, has: self.has });
    }

    /// From now on, the server knows us as this compute node.
    fn be(&mut self, compute_node_id: i64) {
        let (give_up, given_up) = watch::channel(false);
        self.give_up = give_up;
        self.aside = Arc::new(self.aside.of_node(compute_node_id, given_up));
    }
}
