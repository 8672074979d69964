//! A store under a plan.

use std::sync::Arc;

use async_trait::async_trait;
use stoq_api::store::{ByteStream, Store, StoreKey};
use stoq_api::{Content, Fault};

use super::FaultPlan;

/// Does what `inner` does, unless the plan says otherwise.
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    plan: FaultPlan,
}

impl FaultyStore {
    /// `inner` under `plan`.
    pub fn new(inner: Arc<dyn Store>, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for FaultyStore {
    async fn put(&self, key: &StoreKey, content: &Content) -> Result<(), Fault> {
        self.plan.run("store.put", self.inner.put(key, content)).await
    }

    async fn get(&self, key: &StoreKey) -> Result<ByteStream, Fault> {
        self.plan.run("store.get", self.inner.get(key)).await
    }

    async fn keep(&self, name: &str, content: &Content) -> Result<(), Fault> {
        self.plan.run("store.keep", self.inner.keep(name, content)).await
    }

    async fn shelve(&self, name: &str, content: &Content) -> Result<(), Fault> {
        self.plan.run("store.shelve", self.inner.shelve(name, content)).await
    }

    async fn shelved(&self, name: &str) -> Result<ByteStream, Fault> {
        self.plan.run("store.shelved", self.inner.shelved(name)).await
    }

    async fn shelf(&self, area: &str, most: usize) -> Result<Vec<String>, Fault> {
        self.plan.run("store.shelf", self.inner.shelf(area, most)).await
    }

    async fn unshelve(&self, name: &str) -> Result<(), Fault> {
        self.plan.run("store.unshelve", self.inner.unshelve(name)).await
    }

    async fn days(&self) -> Result<Vec<u32>, Fault> {
        self.plan.run("store.days", self.inner.days()).await
    }

    async fn drop_day(&self, day: u32) -> Result<(), Fault> {
        self.plan.run("store.drop_day", self.inner.drop_day(day)).await
    }

    async fn check(&self) -> Result<(), Fault> {
        self.plan.run("store.check", self.inner.check()).await
    }
}
