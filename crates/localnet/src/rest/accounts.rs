//! What every execution used and cost: `/instances/{id}/accounts`. The official client does not know it.

use axum::extract::Query;
use serde::{Deserialize, Serialize};

use super::{
    server::Instance,
    shapes::{Json, Reply},
};
use crate::network::{AccountPage, Money};

/// Accounts in one answer.
const PAGE_MAX: usize = 10_000;

/// `?after=SEQ&max=N`: at most so many accounts after the one of that number.
#[derive(Deserialize)]
#[serde(default)]
pub struct Cursor {
    after: u64,
    max: usize,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            after: 0,
            max: PAGE_MAX,
        }
    }
}

/// How many accounts to keep from now on; none at first.
#[derive(Deserialize)]
pub struct Keep {
    capacity: usize,
}

/// Accounts, and where all cycles are.
#[derive(Serialize)]
pub struct Answer {
    #[serde(flatten)]
    page: AccountPage,
    money: Money,
}

pub async fn read(instance: Instance, Query(cursor): Query<Cursor>) -> Reply<Answer> {
    let Cursor { after, max } = cursor;
    let read = move |engine: &mut super::engine::Engine| Answer {
        page: engine.network.accounts(after, max.min(PAGE_MAX)),
        money: engine.network.money(),
    };
    Ok(Json(instance.engine.run(read).await?))
}

pub async fn keep(instance: Instance, Json(keep): Json<Keep>) -> Reply<()> {
    instance
        .engine
        .run(move |engine| engine.network.keep_accounts(keep.capacity))
        .await?;
    Ok(Json(()))
}
