//! The promises of the interface.

use std::sync::Arc;

use async_trait::async_trait;
use barge_core::cache::SharedTier;
use barge_redis::RedisTier;
use barge_testkit::servers;
use barge_testkit::tiers::TierHarness;

struct Redis {
    /// With a prefix of its own.
    url: String,
}

#[async_trait]
impl TierHarness for Redis {
    async fn client(&self) -> Arc<dyn SharedTier> {
        Arc::new(RedisTier::open(&self.url).unwrap())
    }
}

mod single {
    use super::*;

    barge_testkit::tier_suite!(Redis { url: servers::redis().fresh_url() });
}

mod cluster {
    use super::*;

    barge_testkit::tier_suite!(Redis { url: servers::redis_cluster().fresh_url() });
}
