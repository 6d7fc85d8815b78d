//! The list of promises, from which each store's tests are made.

/// Makes one test of each promise for a store. The argument is an expression that gives a
/// [`Harness`](crate::conformance::Harness), evaluated once a test. The crate needs tokio with `rt-multi-thread` and `macros`.
#[macro_export]
macro_rules! conformance_suite {
    ($harness:expr) => {
        $crate::conformance_suite! { @modules $harness;
            outcomes {
                insert_answers_every_row
                without_outcomes_a_step_counts
                upsert_tells_new_rows_from_old
                insert_if_absent_leaves_rows_as_they_are
                update_sets_columns_and_finds_missing_rows
                an_update_to_the_same_values_is_an_update
                delete_removes_and_finds_missing_rows
                a_key_that_repeats_in_the_table_reaches_all_its_rows
                a_batch_of_one_row
                a_batch_of_a_hundred_thousand_rows
                slices_are_batches
                composite_keys
                partial_updates_leave_other_columns
                partial_upserts_leave_other_columns
                rows_that_lack_a_needed_column_are_refused
                defaults_fill_columns_left_out
                created_at_is_never_overwritten
                keys_are_never_updated
                upserts_by_another_unique_key
                tables_without_a_key_take_inserts
                steps_see_those_before_them
                columns_are_found_by_name
                a_null_key_finds_nothing
            }
            failures {
                a_failed_step_changes_nothing
                a_failed_transaction_changes_nothing
                apply_rows_leaves_out_bad_rows_alone
                errors_name_what_was_broken
                apply_rows_goes_in_order
                apply_rows_frees_unique_values_in_order
                a_thousand_bad_rows
                a_third_of_ten_thousand_rows_is_bad
                a_transaction_goes_on_after_apply_rows
                a_missing_table_is_said_so
                a_missing_column_is_said_so
                values_of_another_type_are_equal_or_rejected
                row_errors_are_row_errors
            }
            constraints {
                generated_keys_are_drawn_or_refused
                drawn_keys_go_to_their_rows
                given_and_drawn_keys_mix
                keys_are_drawn_without_outcomes
                rejected_rows_draw_no_key
                drawn_keys_are_keys
                nulls_are_distinct_in_unique_keys
                duplicates_within_a_batch_fail
                children_need_their_parents
                parents_with_children_stay
                foreign_keys_cascade_and_set_null
                rows_name_rows_of_their_own_table
                composite_foreign_keys
                rows_kept_out_by_triggers_are_unchanged
                key_groups_are_the_databases
            }
            transactions {
                a_committed_transaction_is_visible
                an_open_transaction_is_seen_by_itself_alone
                a_rollback_leaves_nothing
                a_dropped_transaction_leaves_nothing
                an_empty_transaction_commits
                a_commit_holds_what_was_answered
                a_token_is_claimed_once
                an_earlier_token_counts_as_claimed
                writers_and_lanes_claim_by_themselves
                a_claim_is_rolled_back
                a_transaction_describes_tables_as_it_sees_them
                a_transaction_compares_keys_as_the_store_does
                writers_are_serialised
                transactions_of_many_tasks_all_happen
                a_second_writer_waits
                a_dropped_transact_is_whole_or_nothing
                a_closed_store_says_so
                close_waits_for_the_open_transaction
            }
            look_ups {
                missing_keys_find_nothing
                empty_and_null_keys
                ten_thousand_keys
                a_key_finds_all_its_rows
                columns_come_as_the_record_says
                a_value_that_does_not_fit_is_an_error
                a_transaction_finds_its_own_rows
                look_ups_beside_a_writer_see_whole_transactions
            }
            ordered {
                the_rows_of_a_key_come_in_order
                a_limit_counts_the_rows_of_each_key
                odd_keys_in_order
                many_keys_in_order
                a_transaction_orders_its_own_rows
                ties_are_broken_by_the_key
                columns_that_cannot_be_are_refused
                keys_that_no_row_can_have_find_nothing
                random_look_ups_are_as_in_memory
            }
            sql {
                sql_runs_or_is_refused
                a_query_streams_its_rows
                a_stream_may_be_dropped_early
                a_query_joins_a_batch
                a_query_gives_the_types_asked_for
                a_query_that_is_wrong_says_so
                a_statement_over_a_batch_writes
                a_failed_statement_changes_nothing
                execute_counts_rows
                a_query_sees_committed_rows
            }
            schema {
                a_description_tells_columns_and_keys
                a_description_tells_composite_keys
                a_description_tells_foreign_keys
                a_description_tells_what_is_special
                tables_are_listed
                create_table_makes_a_table
                names_and_values_are_never_run
                create_table_takes_any_name
                columns_may_be_called_like_the_stores_own
            }
            types {
                integers_are_equal
                floats_are_equal_or_rejected
                decimals_are_equal
                text_is_equal
                binary_is_equal
                dates_are_equal_or_rejected
                times_are_equal
                timestamps_are_equal_or_rejected
                uuids_are_equal
                json_is_equal_or_rejected
                lists_are_equal
                fixed_lists_are_equal
                every_type_of_key_finds_its_row
                a_rejected_value_is_rejected_alone
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
                $crate::conformance::$module::$promise(&harness).await;
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
            include_str!("outcomes.rs"),
            include_str!("failures.rs"),
            include_str!("constraints.rs"),
            include_str!("transactions.rs"),
            include_str!("look_ups.rs"),
            include_str!("ordered.rs"),
            include_str!("sql.rs"),
            include_str!("schema.rs"),
            include_str!("types.rs"),
        ];
        let promises = modules.iter().flat_map(|module| module.split("pub async fn ").skip(1));
        for promise in promises.filter_map(|text| text.split('(').next()) {
            assert!(list.split_whitespace().any(|word| word == promise), "{promise} is not in the list");
        }
    }
}
