//! The list of promises, from which each cache's tests are made.

/// Makes one test of each promise for a cache. The argument is an expression that gives a
/// [`TierHarness`](crate::tiers::TierHarness), evaluated once a test. The crate needs tokio with `rt-multi-thread` and `macros`.
#[macro_export]
macro_rules! tier_suite {
    ($harness:expr) => {
        $crate::tier_suite! { @modules $harness;
            values {
                a_missing_key_has_no_value
                values_come_in_the_order_of_their_keys
                any_bytes_are_a_value
                any_text_is_a_key
                no_keys_are_no_work
                ten_thousand_keys
            }
            leases {
                a_lease_is_granted_once
                a_lease_stays_its_tokens
                leases_come_in_the_order_of_their_keys
                a_lease_expires
                a_released_lease_is_free
                only_its_token_releases_a_lease
                a_key_with_a_value_is_leased_like_others
            }
            fills {
                only_the_leases_token_fills
                a_fill_ends_its_lease
                a_fill_replaces_the_value
                a_fill_behind_its_lease_is_void
                each_entry_has_its_own_lease
                each_entry_expires_at_its_own_time
                marks_are_set_without_a_lease
                marks_expire
            }
            invalidations {
                an_invalidated_entry_is_gone_and_barred
                a_fill_that_was_overtaken_is_void
                a_bar_expires
                a_bar_is_nobodys_to_release
                a_later_bar_takes_the_place_of_an_earlier
                keys_without_a_value_are_barred
                other_keys_are_left_alone
            }
            clients {
                what_one_sets_others_read
                of_racing_clients_one_gets_each_lease
                of_racing_fills_and_invalidations_none_outlives_the_bar
                a_dropped_call_harms_nobody
                a_closed_client_says_so
            }
        }
    };
    (@modules $harness:expr; $($module:ident { $($promise:ident)* })*) => {
        $(mod $module {
            #[allow(unused_imports)]
            use super::*;

            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let harness = $harness;
                $crate::tiers::$module::$promise(&harness).await;
            })*
        })*
    };
}

#[cfg(test)]
mod tests {
    /// Every promise is in the list: each is a public function of its module that takes a harness.
    #[test]
    fn every_promise_is_listed() {
        let list = include_str!("suite.rs");
        let modules = [
            include_str!("values.rs"),
            include_str!("leases.rs"),
            include_str!("fills.rs"),
            include_str!("invalidations.rs"),
            include_str!("clients.rs"),
        ];
        let promises = modules.iter().flat_map(|module| module.split("pub async fn ").skip(1));
        for promise in promises.filter_map(|text| text.split('(').next()) {
            assert!(list.split_whitespace().any(|word| word == promise), "{promise} is not in the list");
        }
    }
}
