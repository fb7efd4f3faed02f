//! Agents, as those who run them see them.

use contracts::v1::{self, AgentHealth};

use crate::support::{echo, reason, server, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_is_asked_again_changes_nothing_and_is_answered_alike() {
    let server = server().await;
    let _first = echo(&server).await;
    let mut client = server.agents();
    let request = v1::DrainAgentRequest {
        agent_id: "echo".to_owned(),
        reason: "a new version".to_owned(),
        request_id: "drain-1".to_owned(),
    };
    let drained = client.drain_agent(request.clone()).await.unwrap().into_inner();
    assert_eq!(drained.agent.as_ref().unwrap().health(), AgentHealth::Draining);
    until("the agent is gone", async || {
        let listed = server.agents().list_agents(v1::ListAgentsRequest::default()).await.unwrap();
        listed.into_inner().agents.is_empty()
    })
    .await;

    let _second = echo(&server).await;
    let again = client.drain_agent(request.clone()).await.unwrap().into_inner();
    assert_eq!(again, drained);
    let get = v1::GetAgentRequest { agent_id: "echo".to_owned() };
    let second = client.get_agent(get).await.unwrap().into_inner().agent.unwrap();
    assert_eq!(second.health(), AgentHealth::Healthy, "it was not asked to drain");

    let other = v1::DrainAgentRequest { reason: "another".to_owned(), ..request };
    let refused = client.drain_agent(other).await.unwrap_err();
    assert_eq!(reason(&refused), "REQUEST_ID_REUSED");
}
