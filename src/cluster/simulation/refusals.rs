//! Heartbeats that Redis refuses, because it takes no writes.
//!
//! In: heartbeats that reach it then. Out: what their senders read of their own leases, and make of
//! it. Owns nothing; bounded by what is on its way.

use std::time::Duration;

use super::Without;
use super::leases::Heartbeat;
use super::met::Met;
use super::process::LEASE;
use super::weather::Weather;
use super::wire::What;
use super::world::World;
use crate::cluster::membership_machine::{MembershipMachine, MembershipState};
use crate::cluster::own_lease::OwnLease;
use crate::seeds::Verdict;
use fanfare_protocol::ids::Owner;

impl World {
    /// A heartbeat has reached a Redis that takes no writes.
    pub(super) fn refuse(&mut self, at: usize, number: u64, beat: &Heartbeat, met: &mut Met) {
        met.refused_beats += 1;
        let of_anybody = self.lacks(Without::OwnLeases);
        let now_us = self.redis_us();
        let own = beat.mine.and_then(|incarnation| {
            let node = beat.node.clone();
            let me = Owner { node, incarnation };
            self.leases.own_lease(&me, beat.holder, now_us, of_anybody)
        });
        self.carry(at, number, What::Refusal(own), met);
    }

    /// The refusal of a heartbeat has reached its process.
    pub(super) fn refused(
        &mut self,
        at: usize,
        number: u64,
        own: Option<OwnLease>,
        met: &mut Met,
    ) -> Verdict {
        let (now, without) = (self.now(), self.without);
        let process = &mut self.processes[at];
        let Some((_, sent_ms)) = process.waits.filter(|w| w.0 == number) else {
            return Ok(());
        };
        process.waits = None;
        let was_fresh = process.course.view.fresh;
        let left = own.map_or(Duration::ZERO, |own| match without {
            Some(Without::RestsOfLeases) if was_fresh => LEASE,
            Some(Without::LeasesAfterOutages) => {
                let last_ms = own.now_ms;
                OwnLease { last_ms, ..own }.left(LEASE)
            }
            _ => own.left(LEASE),
        });
        let until_ms = sent_ms + u64::try_from(left.as_millis()).expect("short");
        process.shown_until_ms = process.shown_until_ms.max(Some(until_ms));
        let sent_at = self.start + Duration::from_millis(sent_ms);
        process.course.refused(left, sent_at, now);
        process.duty.tell();
        let MembershipMachine { standing, view, .. } = &process.course;
        met.refreshed += u64::from(view.fresh && !was_fresh);
        let is_member = matches!(standing, MembershipState::Member(_));
        if self.weather == Weather::Gentle && is_member && !view.fresh {
            return Err(format!("{} lives and does not know it", view.me));
        }
        Ok(())
    }
}
