//! The balancer of that day: nginx, connections by turns. It checks nobody, keeps no time and tells nobody.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::balancer::Balancer;
use crate::{Family, Lab, stream::Stream};

pub(super) struct Historical {
    nginx: Stream,
    servers: Vec<SocketAddr>,
}

impl Historical {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let servers: Vec<_> = lab.webs().iter().map(|web| web.address(Family::V4, 80)).collect();
        let nginx = Stream::start(lab, Lab::VIP.socket(Family::V4), &servers)?;
        Ok(Self { nginx, servers })
    }
}

impl Balancer for Historical {
    fn detach(&mut self, _period: Duration) -> Result<String> {
        self.nginx.balance_over(&self.servers[..1])?;
        Ok("web-02 is taken out of nginx's upstream for a test, and forgotten".to_owned())
    }

    fn news(&mut self) -> Result<Vec<(Instant, String)>> {
        Ok(Vec::new())
    }

    fn alarm_after(&self, _detached: Instant) -> Option<Instant> {
        None
    }
}
