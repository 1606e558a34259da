//! One suite for every broker: what the rest of the node relies on, whichever engine is below.
//!
//! In: an engine's `start`, which gives a fresh, empty broker and its feed. Out: one test per case
//! and engine. The cases know nothing of engines and none of them needs a clock that can be set;
//! what only such a clock can show is in [`stepped_clock`], for the engine that has one. To add an
//! engine, write a `start` for it and give it to `cases!` in a module of its own.

mod apps;
mod audit;
mod feed;
mod history;
mod idempotency;
mod inbox;
mod positions;
mod presence;
mod queue;
mod queue_dead;
mod queue_rig;
mod queue_turns;
mod recovery;
mod revocations;
mod rig;
mod stepped_clock;

/// Makes a test of every case for the engine that `$start` starts.
macro_rules! cases {
    ($start:path) => {
        cases! { $start =>
            apps::an_app_that_is_removed_is_gone_and_has_another_life_later,
            apps::apps_are_read_again_only_where_one_has_changed,
            apps::more_apps_or_bytes_than_may_be_are_not_stored,
            apps::of_removals_the_newest_are_remembered,
            audit::an_entry_is_told_as_it_was_written,
            audit::pages_of_the_audit_give_each_entry_once,
            audit::the_oldest_entries_make_room,
            feed::a_control_message_comes_back_on_the_own_feed,
            feed::a_context_comes_with_its_publication_and_is_kept_nowhere,
            feed::a_feed_that_nobody_reads_breaks_and_then_goes_on,
            feed::a_topic_that_is_wanted_again_is_confirmed_again,
            feed::a_topic_that_is_wanted_no_more_falls_silent,
            feed::concurrent_publications_arrive_in_the_order_of_their_ids,
            feed::only_wanted_topics_are_heard,
            feed::what_is_published_after_the_confirmation_arrives,
            history::a_history_page_is_bounded_by_bytes_but_never_empty,
            history::a_page_for_readers_is_bounded_in_what_is_sent,
            history::a_topic_keeps_exactly_as_many_entries_as_it_should,
            history::an_unknown_topic_has_an_empty_history,
            history::both_ends_are_excluded_in_both_directions,
            history::entries_over_age_are_gone,
            history::history_that_is_switched_off_is_gone,
            history::paging_in_either_direction_gives_everything_once,
            idempotency::a_key_is_forgotten_after_its_time,
            idempotency::a_key_is_known_only_on_its_topic,
            idempotency::a_repeated_key_answers_the_first_position_and_publishes_nothing,
            inbox::a_cursor_that_moved_is_told_once,
            inbox::a_position_above_the_newest_is_refused,
            inbox::an_untouched_inbox_is_empty,
            inbox::new_messages_stand_in_a_later_millisecond_than_the_cursor,
            inbox::pending_is_counted_up_to_a_thousand,
            inbox::pending_is_what_lies_above_the_cursor,
            inbox::the_cursor_moves_only_forward,
            positions::a_new_millisecond_begins_at_a_random_sequence,
            positions::a_topic_without_history_links_too,
            positions::bodies_survive_byte_for_byte,
            positions::every_field_of_a_publication_survives,
            positions::ids_rise_and_link_to_their_predecessor,
            positions::the_last_position_is_known_per_topic,
            presence::a_late_command_of_an_earlier_entering_changes_nothing,
            presence::a_member_taken_over_by_a_new_life_of_its_node_neither_leaves_nor_joins,
            presence::a_member_that_an_earlier_life_entered_leaves_with_its_session,
            presence::a_page_of_members_has_a_bound_in_bytes,
            presence::entering_again_changes_nothing,
            presence::leaving_for_another_node_removes_nothing,
            presence::members_are_read_page_by_page_in_the_order_of_their_sessions,
            presence::members_come_and_go,
            presence::members_of_one_topic_are_not_those_of_another,
            presence::the_changes_are_a_topic_like_any_other,
            presence::what_a_dead_owner_left_is_removed_and_told_once_whoever_does_it,
            queue::a_bell_rings_when_something_new_waits,
            queue::a_glance_says_where_something_is,
            queue::a_key_of_the_queue_is_forgotten_after_its_time,
            queue::a_key_of_the_queue_lives_from_the_time_of_its_entry_on,
            queue::a_move_that_is_repeated_finds_nothing_and_doubles_nothing,
            queue::a_partition_into_which_nothing_was_put_is_empty,
            queue::a_repeated_key_of_a_target_answers_the_first_entry,
            queue::an_entry_that_is_moved_brings_its_context,
            queue::depths_say_what_waits_and_since_when,
            queue::entries_of_a_target_are_moved_in_their_order,
            queue::times_that_are_over_keep_the_order_of_acceptance,
            queue::what_is_enqueued_is_fetched_as_it_was_until_it_is_moved,
            queue::what_is_moved_is_heard_between_direct_publications,
            queue::what_is_to_come_at_once_follows_what_became_due_before_it,
            queue::what_is_to_come_later_comes_in_the_order_of_its_time,
            queue::what_was_due_before_it_was_enqueued_is_fetched_at_once,
            queue_dead::a_letter_has_the_name_that_its_entry_was_given,
            queue_dead::dead_letters_are_read_in_pages_and_dropped_by_their_ids,
            queue_dead::each_entry_of_a_batch_has_its_own_end,
            queue_dead::the_oldest_dead_letters_make_room_and_are_counted,
            queue_turns::a_fetch_of_many_partitions_is_bounded_and_brings_all_in_the_end,
            queue_turns::an_entry_larger_than_a_fetch_is_fetched_alone,
            queue_turns::critical_comes_first_and_leaves_the_lower_ones_their_share,
            queue_turns::each_priority_brings_its_first_entry_however_long,
            queue_turns::many_entries_of_many_targets_are_answered_in_their_order,
            queue_turns::streams_take_turns,
            recovery::a_caught_up_reader_has_missed_nothing,
            recovery::a_hole_inside_the_range_is_a_failover,
            recovery::a_link_to_the_oldest_entry_is_enough,
            recovery::a_replay_page_is_bounded_by_bytes_but_never_empty,
            recovery::a_position_in_the_range_gets_what_came_after_it,
            recovery::a_topic_without_history_compares_with_the_newest_only,
            recovery::above_the_newest_is_a_failover,
            recovery::an_unknown_topic_is_judged_by_the_age_of_the_position,
            recovery::below_the_oldest_link_is_gone_by_retention,
            recovery::nothing_within_age_is_gone_by_retention,
            recovery::pages_until_caught_up_give_everything_once_and_in_order,
            recovery::zero_stands_before_everything_that_is_retained,
            revocations::a_token_that_is_taken_now_was_issued_before_the_default_time,
            revocations::all_of_a_call_or_nothing_is_added_where_there_is_no_room,
            revocations::changes_are_read_in_their_order_and_only_once,
            revocations::nothing_is_ever_weakened,
            revocations::the_next_full_second_is_the_default,
            revocations::what_has_ended_is_forgotten_and_told_by_one_time,
            revocations::what_is_there_is_lengthened_once_where_tokens_live_longer,
            revocations::what_is_written_back_is_as_it_was,
        }
    };
    ($start:path => $($module:ident::$case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::$module::$case($start().await).await;
            }
        )*
    };
}

mod memory {
    cases!(crate::rig::start_memory);
}

mod redis {
    cases!(crate::rig::start_redis);
}

mod redis_as_user {
    cases!(crate::rig::start_redis_as_user);
}

mod cluster {
    cases!(crate::rig::start_cluster);
}
