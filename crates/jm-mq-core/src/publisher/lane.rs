//! Where messages of one kind are published. Two kinds share no connection: what one message does to its connection, it
//! does to the others of its kind alone.

use std::time::Duration;

use super::{
    channel::{ChannelPool, Failure, Lease},
    suspicion::Suspicion,
    ward::Ward,
};

pub(super) struct Lane {
    pub(super) channels: ChannelPool,
    pub(super) ward: Ward,
}

impl Lane {
    /// A channel that nobody else uses meanwhile; for a suspect on a connection that nobody else uses.
    pub(super) async fn lease(&self, suspicion: &Suspicion) -> Result<Lease, Failure> {
        if suspicion.is_any() { self.ward.lease().await } else { self.channels.lease().await }
    }

    pub(super) async fn close(&self, limit: Duration) {
        self.ward.close();
        self.channels.close(limit).await;
    }
}
