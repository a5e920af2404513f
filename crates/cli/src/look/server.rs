//! A server, asked over HTTP.

use forebay_wire::{
    JobModel, JobStatus, ListJobsResponse, ListResultsResponse, ListWorkflowsResponse, ResultModel, WorkflowModel,
    WorkflowStatusResponse,
};
use forebay_worker::{Access, CallError, Client};

use super::{PAGE, Wanted, WorkflowView, view};

pub struct Server {
    client: Client,
}

impl Server {
    pub fn at(url: &str, access: &Access) -> anyhow::Result<Server> {
        Ok(Server { client: Client::new(url, access)? })
    }

    pub async fn workflows(&self) -> anyhow::Result<Vec<WorkflowView>> {
        let mut views = Vec::new();
        let mut offset = 0;
        loop {
            let page: ListWorkflowsResponse =
                self.client.get(&format!("/workflows?offset={offset}&limit={PAGE}")).await?;
            for model in &page.items {
                views.extend(self.view(model).await?);
            }
            offset += page.count;
            if !page.has_more || page.count == 0 {
                return Ok(views);
            }
        }
    }

    pub async fn workflow(&self, id: i64) -> anyhow::Result<Option<WorkflowView>> {
        let found: Option<WorkflowModel> = if_there(self.client.get(&format!("/workflows/{id}")).await)?;
        match found {
            Some(model) => self.view(&model).await,
            None => Ok(None),
        }
    }

    pub async fn newest(&self) -> anyhow::Result<Option<i64>> {
        let page: ListWorkflowsResponse = self.client.get("/workflows?limit=1&reverse_sort=true").await?;
        Ok(page.items.first().and_then(|model| model.id))
    }

    pub async fn jobs(&self, workflow: i64, status: Option<JobStatus>, offset: i64) -> anyhow::Result<Vec<JobModel>> {
        let status = status.map(|status| format!("&status={status}")).unwrap_or_default();
        let path = format!("/jobs?workflow_id={workflow}&offset={offset}&limit={PAGE}{status}");
        let page: ListJobsResponse = self.client.get(&path).await?;
        Ok(page.items)
    }

    pub async fn results(&self, workflow: i64, wanted: Wanted, offset: i64) -> anyhow::Result<Vec<ResultModel>> {
        let all = wanted.all_attempts;
        let path = format!("/results?workflow_id={workflow}&offset={offset}&limit={PAGE}&all_runs={all}");
        let page: ListResultsResponse = self.client.get(&path).await?;
        Ok(page.items)
    }

    /// `None` if the workflow was deleted meanwhile.
    async fn view(&self, model: &WorkflowModel) -> anyhow::Result<Option<WorkflowView>> {
        let path = format!("/workflows/{}/status?times=false", model.id.unwrap_or_default());
        let status: Option<WorkflowStatusResponse> = if_there(self.client.get(&path).await)?;
        Ok(status.map(|status| view(model, status.jobs_by_status, status.is_complete)))
    }
}

/// What was asked for, or nothing if the server does not have it.
fn if_there<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(CallError::Refused { status: 404, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
