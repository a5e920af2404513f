//! Which applications there are. Each is an endless workflow; they come, and do not go.

use std::collections::BTreeMap;
use std::sync::Arc;

use forebay_domain::catalog::{Paging, Query, Table, Value};
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::WorkflowId;
use forebay_engine::{EngineHandle, Error};
use tokio::sync::{Mutex, watch};

use crate::fault::Fault;
use crate::rulings::Rulings;

/// By their names.
pub type Known = BTreeMap<String, WorkflowId>;

pub struct Applications {
    known: watch::Sender<Arc<Known>>,
    /// Held while one is made: two of a name must not be.
    making: Mutex<()>,
    most: usize,
}

impl Applications {
    pub async fn load(engine: &EngineHandle, most: usize) -> Result<Applications, Error> {
        let paging = Paging { offset: 0, limit: u64::MAX, sort_by: None, reverse: false };
        let query = Query { table: Table::Application, filters: Vec::new(), paging };
        let (rows, _) = engine.read(move |reader| reader.list(&query)).await?;
        let known = rows.iter().filter_map(|row| match &**row {
            [_, Value::Int(workflow), Value::Text(name)] => Some((name.to_string(), WorkflowId(*workflow))),
            _ => None,
        });
        Ok(Applications { known: watch::Sender::new(Arc::new(known.collect())), making: Mutex::default(), most })
    }

    pub fn find(&self, name: &str) -> Option<WorkflowId> {
        self.known.borrow().get(name).copied()
    }

    pub fn all(&self) -> Arc<Known> {
        Arc::clone(&self.known.borrow())
    }

    /// The application of this name, as soon as it is there.
    pub async fn appears(&self, name: &str) -> WorkflowId {
        let mut watching = self.known.subscribe();
        let known = watching.wait_for(|known| known.contains_key(name)).await.expect("its sender is in self");
        known[name]
    }

    /// Returns when there is one more than in `known`.
    pub async fn changed(&self, known: &Known) {
        let mut watching = self.known.subscribe();
        drop(watching.wait_for(|now| now.len() != known.len()).await.expect("its sender is in self"));
    }

    /// The application of this name; it is made if it is not there. Not to be dropped before it is done.
    pub async fn get(&self, engine: &EngineHandle, rulings: &Rulings, name: &str) -> Result<WorkflowId, Fault> {
        if let Some(workflow) = self.find(name) {
            return Ok(workflow);
        }
        let _making = self.making.lock().await;
        if let Some(workflow) = self.find(name) {
            return Ok(workflow);
        }
        if self.all().len() >= self.most {
            return Err(Fault::Exhausted(format!("there are {} applications, and no more may be", self.most)));
        }
        let made = engine.call(Command::CreateApplication { name: name.into() }).await?;
        let Answer::Created(id) = made else { unreachable!("a creation is answered with an id") };
        let workflow = WorkflowId(id);
        let mut known = (*self.all()).clone();
        known.insert(name.to_owned(), workflow);
        // Before its first task: its bounds hold from then on.
        let _telling = rulings.hold().await;
        let told = rulings.tell(engine, &rulings.now(), &known).await;
        // It is there, come what may.
        self.known.send_replace(Arc::new(known));
        told?;
        Ok(workflow)
    }
}
