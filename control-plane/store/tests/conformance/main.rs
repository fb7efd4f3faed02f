//! What every database must do, in one list of cases that is run on each.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

mod audit;
mod blob;
mod commit;
mod concurrency;
mod dead_letter;
mod document;
mod fault;
mod key;
mod opening;
mod ownership;
mod partition;
mod postgres_only;
mod read;
mod replica;
mod request;
mod retention;
mod schedule;
mod workflow;

/// Runs each case on a new database of each kind, and first on the model of one.
macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        mod memory {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    crate::$module::$case(crate::support::World::in_memory()).await;
                })+
            })+
        }

        database_cases! { $($module: $($case),+;)+ }
    };
}

/// The same without the model: what is about files, addresses and SQL.
macro_rules! database_cases {
    ($($module:ident: $($case:ident),+;)+) => {
        mod sqlite {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let database = store::testing::sqlite();
                    crate::$module::$case(crate::support::World::new(database).await).await;
                })+
            })+
        }

        mod postgres {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let database = store::testing::postgres().await;
                    crate::$module::$case(crate::support::World::new(database).await).await;
                })+
            })+
        }
    };
}

cases! {
    commit:
        a_run_is_inserted_and_read_back,
        a_run_is_inserted_once,
        a_transition_wins_on_the_version_it_was_decided_on,
        a_loser_loses_alone,
        a_former_owner_loses,
        a_commit_changes_no_owner_and_no_origin,
        every_field_keeps_its_extremes,
        bodies_keep_every_byte,
        names_with_a_nul_are_refused_alone,
        broken_transitions_are_refused_alone,
        a_batch_over_the_limit_is_refused,
        an_empty_batch_is_nothing,
        five_hundred_runs_go_in_one_batch;
    read:
        a_run_that_is_not_there_is_none,
        a_journal_is_folded_in_order,
        a_journal_is_read_by_pages,
        a_journal_is_replayed_event_by_event,
        what_happened_together_is_read_apart,
        unfinished_runs_are_read_by_pages,
        runs_are_listed_by_time_in_both_directions,
        runs_are_filtered;
    request:
        a_repeated_start_loses_alone_and_learns_its_run,
        a_start_repeated_in_one_batch_goes_once,
        a_request_of_a_losing_transition_is_not_kept,
        a_request_may_come_with_a_later_transition,
        a_request_without_a_run_is_put_once,
        old_requests_expire;
    blob:
        a_long_body_comes_back_whole,
        equal_content_is_stored_once,
        blobs_are_collected_when_unreferenced_and_old,
        a_commit_touches_what_it_refers_to,
        a_reference_to_a_missing_blob_is_refused_alone,
        blobs_go_after_their_run;
    dead_letter:
        dead_letters_come_and_go_with_commits,
        a_loser_leaves_no_dead_letter,
        dead_letters_are_listed_and_deleted;
    document:
        documents_change_by_compare_and_swap,
        a_change_is_done_as_a_whole_or_not_at_all,
        many_documents_are_written_at_once_or_none,
        a_change_over_a_limit_is_refused,
        documents_are_listed_and_filtered,
        documents_come_with_a_run_and_go_with_it,
        a_loser_leaves_no_document_and_no_entry,
        a_document_of_two_runs_is_written_by_both;
    audit:
        chains_are_read_in_order_and_by_pages,
        the_log_is_listed_by_time_and_filtered,
        a_seal_covers_the_heads_it_names_and_nothing_later,
        one_of_many_takes_a_number;
    workflow:
        definitions_are_kept_by_hash,
        a_version_is_replaced_only_on_request,
        an_etag_guards_a_replacement,
        the_latest_version_is_the_one_registered_last,
        workflows_are_listed_by_pages;
    schedule:
        a_schedule_advances_by_compare_and_swap,
        a_schedule_keeps_its_progress_over_another_spec,
        schedules_are_listed_and_deleted;
    retention:
        runs_that_ended_long_ago_are_deleted,
        the_newest_are_kept_in_bounded_batches,
        a_child_stays_as_long_as_its_parent;
    concurrency:
        concurrent_committers_win_once_each,
        concurrent_starts_of_one_request_make_one_run,
        concurrent_batches_of_the_same_runs_do_not_deadlock,
        a_commit_given_up_half_way_harms_no_other,
        concurrent_registrations_have_an_order;
    fault:
        after_an_unknown_outcome_adoption_sees_the_truth,
        faults_are_met_in_order_and_once,
        an_unavailable_store_answers_nothing;
    replica:
        epochs_rise_with_every_replica,
        a_heartbeat_tells_how_all_stand,
        a_replica_is_fenced_by_the_counter_that_was_seen,
        a_fenced_replica_goes_once_it_owns_nothing;
    ownership:
        a_run_is_taken_over_from_its_owner_alone,
        the_unfinished_runs_of_one_owner_are_adopted_in_batches,
        runs_of_nobody_are_adopted_unless_they_are_parked,
        a_parked_run_belongs_to_nobody_until_it_wakes,
        a_run_is_parked_only_as_it_was_seen,
        a_run_that_waits_for_children_is_parked_while_all_of_them_live,
        the_end_of_a_child_wakes_its_parked_parent,
        no_end_of_a_child_is_lost_to_a_parking_at_the_same_time,
        many_runs_are_folded_at_once,
        runs_that_hold_too_much_together_are_left_out,
        two_who_adopt_at_once_share_the_runs;
    key:
        keys_change_by_compare_and_swap,
        keys_are_listed_by_pages,
        two_who_change_many_keys_at_once_do_not_wait_for_one_another;
    opening:
        a_closed_store_is_unavailable;
}

/// Cases that look behind the store.
mod behind {
    database_cases! {
        commit:
            a_journal_that_contradicts_its_run_is_refused_alone;
        opening:
            a_database_is_opened_again_with_all_that_is_in_it,
            a_newer_schema_is_refused,
            it_says_what_it_is,
            a_release_works_beside_a_newer_one,
            what_a_release_before_wrote_is_there;
    }
}
