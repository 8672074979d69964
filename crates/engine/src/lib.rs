//! One payload's rounds, dispatch, budgets, settlement and assembly.
//!
//! The path of a payload, in order: [`intake`] turns a reference into a task on the lane; [`worker`] takes the task,
//! [`fetch`]es its bytes, has it [`examine`]d, and [`settle`]s the outcome; the last to settle a scan [`assemble`]s its
//! response and puts it on the result lane. [`sweep`] finishes what nobody else can.
#![forbid(unsafe_code)]

pub mod assemble;
mod attempts;
pub mod breaker;
pub mod dead;
pub mod examine;
mod feed;
pub mod fetch;
pub mod intake;
pub mod lanes;
pub mod links;
pub mod meters;
pub mod plan;
pub mod replay;
pub mod retain;
pub mod rounds;
pub mod rules;
pub mod settle;
pub mod surroundings;
pub mod sweep;
pub mod worker;

pub use breaker::{Breaker, BreakerSettings};
pub use lanes::{Lanes, TenantLanes};
pub use links::{Links, Settings};
pub use meters::Meters;
pub use plan::{ExternalPlugin, Plan, PlannedPlugin};
pub use surroundings::Surroundings;
pub use worker::Worker;
