//! `agents`.

use clap::{Args, Subcommand};
use contracts::v1::{
    Agent, BreakerState, DrainAgentRequest, GetAgentRequest, ListAgentsRequest, ListAgentsResponse,
};

use super::progress::{self, Advise};
use super::workflow::or_dash;
use super::{Session, pages};
use crate::connection::agents;
use crate::error::Error;
use crate::exit::Exit;
use crate::request_id::request_id;
use crate::table::{Table, details};
use crate::{json, moment, output, status};

const AGENTS_MAX: usize = 100_000;

/// What can be done with agents.
#[derive(Subcommand, Clone, Debug)]
pub enum AgentCommand {
    /// List connected agents and what they offer
    #[command(after_help = "Examples:\n  orchestrator agents list\n  \
        orchestrator agents list -o json | jq -r '.agents[].agentId'")]
    List,
    /// Show how agents are, or all about one
    #[command(after_help = "Examples:\n  orchestrator agents health\n  \
        orchestrator agents health security-scanner")]
    Health(Health),
    /// Let an agent finish what it has and give it nothing new
    #[command(after_help = "Example:\n  orchestrator agents drain echo/host-1 --reason upgrade")]
    Drain(Drain),
    /// Say which agents to add, to drain or to move, and why
    #[command(after_help = "Example:\n  orchestrator agents advise --minutes 10")]
    Advise(Advise),
}

/// Shows health.
#[derive(Args, Clone, Debug)]
pub struct Health {
    /// `type/instance`, or a type or alias of which one is connected
    agent: Option<String>,
}

/// Drains.
#[derive(Args, Clone, Debug)]
pub struct Drain {
    /// `type/instance`, or a type or alias of which one is connected
    agent: String,
    /// Why, for the agent's log
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

pub(super) async fn run(command: AgentCommand, session: &mut Session) -> Result<Exit, Error> {
    match command {
        AgentCommand::List => list(session).await,
        AgentCommand::Health(Health { agent: None }) => health(session).await,
        AgentCommand::Health(Health { agent: Some(agent) }) => one(agent, session).await,
        AgentCommand::Drain(drain) => self::drain(drain, session).await,
        AgentCommand::Advise(advise) => progress::advise(advise, session).await,
    }
}

/// All connected agents.
pub(super) async fn all(session: &Session) -> Result<Vec<Agent>, Error> {
    let (agents, _) = pages(AGENTS_MAX, async |page_size, page_token| {
        let request = ListAgentsRequest { page_size, page_token };
        let page = session
            .client
            .call(async |channel| agents(channel).list_agents(request.clone()).await)
            .await?;
        Ok((page.agents, page.next_page_token))
    })
    .await?;
    Ok(agents)
}

/// Gathers all agents; writes them where JSON is asked for or none is there.
async fn gather(session: &mut Session) -> Result<Option<Vec<Agent>>, Error> {
    let agents = all(session).await?;
    if session.output.is_json() {
        let response = ListAgentsResponse { agents, next_page_token: String::new() };
        session.output.data(&json::message("ListAgentsResponse", &response))?;
        return Ok(None);
    }
    if agents.is_empty() {
        session.output.note(
            "no agent is connected; `orchestrator up` brings the bundled ones, \
             `orchestrator agent NAME` connects one",
        );
        return Ok(None);
    }
    Ok(Some(agents))
}

async fn list(session: &mut Session) -> Result<Exit, Error> {
    let Some(agents) = gather(session).await? else { return Ok(Exit::Success) };
    let several = agents.iter().any(|agent| agent.replica_id != agents[0].replica_id);
    let headings = ["AGENT", "ALIASES", "VERSION", "HEALTH", "TASKS", "ACTIONS", "REPLICA"];
    let shown = if several { &headings[..] } else { &headings[..headings.len() - 1] };
    let mut table = Table::new(shown, &session.output);
    for agent in &agents {
        let actions: Vec<&str> = agent
            .card
            .iter()
            .flat_map(|card| &card.actions)
            .map(|action| action.name.as_str())
            .collect();
        let (tasks, aliases) = (tasks(agent), agent.aliases.join(", "));
        let actions = actions.join(", ");
        let row = [
            agent.agent_id.as_str(),
            or_dash(&aliases),
            or_dash(&agent.version),
            status::health_word(agent.health()),
            &tasks,
            or_dash(&actions),
        ];
        let replica = several.then_some(agent.replica_id.as_str());
        table.row(row.into_iter().chain(replica));
    }
    session.output.data(&table.text())?;
    Ok(Exit::Success)
}

async fn health(session: &mut Session) -> Result<Exit, Error> {
    let Some(agents) = gather(session).await? else { return Ok(Exit::Success) };
    let now = moment::now();
    let headings =
        ["AGENT", "HEALTH", "TASKS", "DONE", "FAILED", "CONNECTED", "LAST SEEN", "SHUT OFF"];
    let mut table = Table::new(&headings, &session.output);
    for agent in &agents {
        let shut: Vec<&str> =
            agent.breakers.iter().map(|breaker| breaker.action.as_str()).collect();
        table.row([
            agent.agent_id.as_str(),
            status::health_word(agent.health()),
            &tasks(agent),
            &agent.succeeded.to_string(),
            &agent.failed.to_string(),
            &moment::relative(agent.connect_time.as_ref(), now),
            &moment::relative(agent.last_seen_time.as_ref(), now),
            or_dash(&shut.join(", ")),
        ]);
    }
    session.output.data(&table.text())?;
    Ok(Exit::Success)
}

async fn one(agent_id: String, session: &mut Session) -> Result<Exit, Error> {
    let request = GetAgentRequest { agent_id };
    let response = session
        .client
        .call(async |channel| agents(channel).get_agent(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("GetAgentResponse", &response))?;
        return Ok(Exit::Success);
    }
    let agent = response.agent.unwrap_or_default();
    let text = description(&agent, session);
    session.output.data(&text)?;
    Ok(Exit::Success)
}

fn description(agent: &Agent, session: &Session) -> String {
    let now = moment::now();
    let mut labels: Vec<String> =
        agent.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.sort();
    let card = agent.card.clone().unwrap_or_default();
    let mut text = details(&[
        ("Agent", agent.agent_id.clone()),
        ("About", card.description),
        ("Version", agent.version.clone()),
        ("Aliases", agent.aliases.join(", ")),
        ("Health", status::health_word(agent.health()).to_owned()),
        ("Tasks", tasks(agent)),
        ("Done", format!("{} well, {} failed", agent.succeeded, agent.failed)),
        ("Connected", moment::local(agent.connect_time.as_ref(), now)),
        ("Last seen", moment::local(agent.last_seen_time.as_ref(), now)),
        ("Transport", if agent.polls { "polls" } else { "stream" }.to_owned()),
        ("Replica", agent.replica_id.clone()),
        ("Labels", labels.join(", ")),
    ]);
    if !card.actions.is_empty() {
        let mut table = Table::new(&["ACTION", "CIRCUIT", "ABOUT"], &session.output);
        for action in &card.actions {
            let breaker = agent.breakers.iter().find(|breaker| breaker.action == action.name);
            let circuit = match breaker.map(contracts::v1::Breaker::state) {
                Some(BreakerState::Open) => {
                    let retry = breaker.and_then(|breaker| breaker.retry_time.as_ref());
                    format!("open, next try {}", moment::relative(retry, now))
                }
                Some(BreakerState::HalfOpen) => "half open".to_owned(),
                _ => "closed".to_owned(),
            };
            let about = output::one_line(&action.description, 100);
            table.row([action.name.as_str(), &circuit, &about]);
        }
        text.push_str("\n\n");
        text.push_str(&table.text());
    }
    text
}

async fn drain(drain: Drain, session: &mut Session) -> Result<Exit, Error> {
    let request = DrainAgentRequest {
        agent_id: drain.agent,
        reason: drain.reason,
        request_id: request_id(None),
    };
    let response = session
        .client
        .call(async |channel| agents(channel).drain_agent(request.clone()).await)
        .await?;
    if session.output.is_json() {
        session.output.data(&json::message("DrainAgentResponse", &response))?;
        return Ok(Exit::Success);
    }
    let agent = response.agent.unwrap_or_default();
    let text = format!(
        "{} gets nothing new; tasks it still has: {}",
        agent.agent_id, agent.tasks_in_flight
    );
    session.output.data(&text)?;
    Ok(Exit::Success)
}

fn tasks(agent: &Agent) -> String {
    format!("{}/{}", agent.tasks_in_flight, agent.slots)
}
