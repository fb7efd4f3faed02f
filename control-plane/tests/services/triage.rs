//! Issues are triaged, outcomes confirmed and learned from.

use contracts::v1::connect_request::Frame;
use contracts::v1::triage_service_client::TriageServiceClient;
use contracts::v1::{self, TriageBasis};
use control_plane::testing::TestServer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use crate::support::{reason, server, until};

/// Agents that declare what they take and stay connected until this is dropped.
struct Agents(#[expect(dead_code, reason = "held")] Vec<mpsc::UnboundedSender<v1::ConnectRequest>>);

async fn agents(server: &TestServer) -> Agents {
    let declared = [
        ("database-agent", "keeps the database", ["migration", "table", "deadlock", "query"]),
        ("disk-agent", "keeps disks from filling up", ["disk", "folder", "quota", "space"]),
    ];
    let mut held = Vec::new();
    for (agent_type, description, keywords) in declared {
        let (frames, stream) = mpsc::unbounded_channel();
        let handles = v1::Handles {
            keywords: keywords.map(ToOwned::to_owned).to_vec(),
            ..v1::Handles::default()
        };
        let action = v1::ActionCard {
            name: "mend".into(),
            handles: Some(handles),
            ..v1::ActionCard::default()
        };
        let register = v1::Register {
            agent_type: agent_type.into(),
            instance: "one".into(),
            slots: 2,
            card: Some(v1::AgentCard { description: description.into(), actions: vec![action] }),
            ..v1::Register::default()
        };
        frames.send(v1::ConnectRequest { frame: Some(Frame::Register(register)) }).unwrap();
        let stream = UnboundedReceiverStream::new(stream);
        let mut answers = server.agents().connect(stream).await.unwrap().into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = answers.message().await {} });
        held.push(frames);
    }
    until("the agents are connected", async || {
        let listed = server.agents().list_agents(v1::ListAgentsRequest::default()).await.unwrap();
        listed.into_inner().agents.len() == 2
    })
    .await;
    Agents(held)
}

fn client(server: &TestServer) -> TriageServiceClient<Channel> {
    TriageServiceClient::new(server.channel())
}

fn issue(id: &str, title: &str) -> v1::Issue {
    v1::Issue { issue_id: id.into(), title: title.into(), ..v1::Issue::default() }
}

async fn triage(server: &TestServer, issues: &[v1::Issue]) -> v1::Triage {
    let request =
        v1::TriageIssuesRequest { issues: issues.to_vec(), ..v1::TriageIssuesRequest::default() };
    client(server).triage_issues(request).await.unwrap().into_inner().triage.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issues_are_placed_kept_and_answered_alike_when_asked_again() {
    let server = server().await;
    let _agents = agents(&server).await;
    let request = v1::TriageIssuesRequest {
        issues: vec![
            issue("a", "deadlock of two queries on a table"),
            issue("b", "no space left on the disk"),
            issue("c", "the coffee is cold"),
        ],
        request_id: "triage-1".into(),
        ..v1::TriageIssuesRequest::default()
    };
    let mut client = client(&server);
    let triage = client.triage_issues(request.clone()).await.unwrap().into_inner().triage.unwrap();
    let placed: Vec<&str> = triage.assignments.iter().map(|one| &*one.agent_type).collect();
    assert_eq!(placed, ["database-agent", "disk-agent"], "{triage:?}");
    assert_eq!(triage.assignments[0].basis(), TriageBasis::Declaration);
    assert_eq!(triage.escalated[0].issue_id, "c");
    assert_eq!(triage.counts.unwrap().issues, 3);
    let again = client.triage_issues(request.clone()).await.unwrap().into_inner().triage.unwrap();
    assert_eq!(again, triage);
    let other = v1::TriageIssuesRequest { issues: vec![issue("z", "other")], ..request };
    assert_eq!(reason(&client.triage_issues(other).await.unwrap_err()), "REQUEST_ID_REUSED");
    let get = v1::GetTriageRequest { triage_id: triage.triage_id.clone() };
    let whole = client.get_triage(get).await.unwrap().into_inner().triage.unwrap();
    assert_eq!((whole.issues.len(), &whole.assignments), (3, &triage.assignments));
    let list = v1::ListTriagesRequest::default();
    let listed = client.list_triages(list).await.unwrap().into_inner().triages;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].assignments.is_empty());
    let none = v1::GetTriageRequest { triage_id: "none".into() };
    assert_eq!(reason(&client.get_triage(none).await.unwrap_err()), "TRIAGE_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn issues_in_a_circle_are_refused_and_nothing_is_kept() {
    let server = server().await;
    let mut circle = [issue("a", "one"), issue("b", "two")];
    circle[0].depends_on = vec!["b".into()];
    circle[1].depends_on = vec!["a".into()];
    let request = v1::TriageIssuesRequest { issues: circle.to_vec(), ..Default::default() };
    let mut client = client(&server);
    let refused = client.triage_issues(request).await.unwrap_err();
    assert_eq!(reason(&refused), "ISSUE_CYCLE");
    assert!(refused.message().contains("a -> b -> a"), "{}", refused.message());
    let request = v1::TriageIssuesRequest {
        issues: vec![issue("a", "one")],
        validate_only: true,
        ..Default::default()
    };
    let tried = client.triage_issues(request).await.unwrap().into_inner().triage.unwrap();
    assert!(tried.triage_id.is_empty() && tried.escalated.len() == 1);
    let list = v1::ListTriagesRequest::default();
    assert!(client.list_triages(list).await.unwrap().into_inner().triages.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_is_learned_before_the_next_triage() {
    let server = server().await;
    let _agents = agents(&server).await;
    let mut client = client(&server);
    let words = ["slow", "late", "stuck", "odd", "torn", "lost", "bent", "stale"];
    let outcomes: Vec<v1::Outcome> = (0..40)
        .map(|number| {
            let (agent, about) = match number % 2 {
                0 => ("database-agent", "vacuum of the bloated index"),
                _ => ("disk-agent", "inode exhaustion in the spool"),
            };
            let title = format!("{about} is {} {}", words[number % 8], words[number / 8]);
            v1::Outcome {
                issue_id: format!("o{number}"),
                issue: Some(issue("", &title)),
                agent_type: agent.into(),
                ..v1::Outcome::default()
            }
        })
        .collect();
    let request = v1::ConfirmOutcomesRequest { outcomes, request_id: "confirm-1".into() };
    let answer = client.confirm_outcomes(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.confirmed, 40);
    assert_eq!(client.confirm_outcomes(request).await.unwrap().into_inner(), answer);
    let issues =
        [issue("a", "the index is bloated, vacuum hangs"), issue("b", "spool out of inode")];
    let learned = triage(&server, &issues).await;
    let placed: Vec<(&str, TriageBasis)> =
        learned.assignments.iter().map(|one| (&*one.agent_type, one.basis())).collect();
    let want = [("database-agent", TriageBasis::Learned), ("disk-agent", TriageBasis::Learned)];
    assert_eq!(placed, want, "{learned:?}");
    assert!(learned.model_version > 0);
    assert!(learned.assignments[0].reason.contains("nearest to issue o"));

    let outcomes = vec![
        v1::Outcome {
            triage_id: learned.triage_id.clone(),
            issue_id: "a".into(),
            ..v1::Outcome::default()
        },
        v1::Outcome {
            triage_id: learned.triage_id.clone(),
            issue_id: "b".into(),
            agent_type: "database-agent".into(),
            ..v1::Outcome::default()
        },
    ];
    let request = v1::ConfirmOutcomesRequest { outcomes, ..Default::default() };
    let answer = client.confirm_outcomes(request).await.unwrap().into_inner();
    assert_eq!(answer.first_assignment_correct_ratio, 0.5);
    let again = triage(&server, &issues).await;
    assert_eq!(again.model_version, learned.model_version + 1);
    let outcome = v1::Outcome { issue_id: "x".into(), ..v1::Outcome::default() };
    let request = v1::ConfirmOutcomesRequest { outcomes: vec![outcome], ..Default::default() };
    assert_eq!(reason(&client.confirm_outcomes(request).await.unwrap_err()), "INVALID_FIELD");
}
