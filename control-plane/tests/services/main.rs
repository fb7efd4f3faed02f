//! The services as clients see them: a whole control plane in process, on a database of its own.
//!
//! - `support`: the control plane, an echo agent, how to wait for things;
//! - `run`: starting, steering, reading and watching runs;
//! - `start_runs`: many runs over one stream, and their ends;
//! - `workflow`: validating, registering and listing workflows;
//! - `schedule`: runs that start by the clock;
//! - `retention`: what is removed, and what is not;
//! - `admission`: starts are refused when there is too much to do;
//! - `agents`: agents are drained;
//! - `doctor`: how the deployment is;
//! - `triage`: issues are placed, outcomes learned from;
//! - `issues`: people are asked about issues that nobody mends;
//! - `plans`: what is written once the run of a plan has ended;
//! - `port`: what else the port serves, and how it stops.
#![expect(clippy::unwrap_used, reason = "tests")]

mod admission;
mod agents;
mod doctor;
mod issues;
mod plans;
mod port;
mod retention;
mod rollback;
mod run;
mod schedule;
mod start_runs;
mod support;
mod triage;
mod workflow;
