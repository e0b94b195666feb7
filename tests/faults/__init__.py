"""Faults on real sockets: the service before a simulated exchange in which things go wrong.

Each scenario of a list that is kept in the field, and the test that plays it (modules without
`test_`; all but the last part are in `scenarios`):

| Scenario | Test |
| --- | --- |
| basic connect | `a_connection_brings_what_is_asked_for` |
| reconnect | `a_lost_connection_is_replaced_and_nothing_is_missing` |
| partition | `a_partition_is_noticed_and_nothing_is_missing_after_it` |
| half-open | `a_half_open_connection_is_given_up_while_rest_works` |
| disconnect during reconnect | `a_reconnect_that_is_cut_at_any_moment_is_tried_again` (connect) |
| disconnect during backoff | `an_exchange_that_went_away_during_the_backoff_is_found_again` |
| drop at handshake | `a_reconnect_that_is_cut_at_any_moment_is_tried_again` (upgrade) |
| drop at resubscription | the same (request) |
| drop at first read | the same (answer) |
| partition while reconnecting | `a_partition_while_reconnecting_is_bridged_by_rest_until_a_connect_succeeds` |
| partition during backoff sleep | `a_partition_that_begins_during_the_backoff_is_outlived` |
| silent until idle time-out | `a_quiet_connection_is_kept_alive_and_its_book_is_current_until_it_goes_dead` |
| heartbeat reaches server | the same |
| server ping gets pong | `a_ping_of_the_exchange_is_answered` |
| reader stops (back-pressure) | `a_slow_connection_is_behind_and_loses_nothing`, `bad_input::a_reader_that_never_reads_is_ended_and_the_others_get_everything` |
| send waiting while disconnected | `what_is_asked_for_while_disconnected_is_sent_with_the_next_connection` |
| max attempts | `connects_are_tried_for_ever_within_the_limit_and_ever_less_often` |
| server close frame | `a_close_frame_is_a_lost_connection` |
| repeated drops keep message order | `repeated_drops_keep_the_order` |
| queued write dropped, later order kept | `a_request_lost_on_its_way_is_replaced_by_what_is_wanted_now` |
| handshake 429 | `refused_handshakes_are_not_hurried` |
| REST 429 | `a_refused_call_is_asked_again_in_its_time`; during a fill: `a_fault_of_the_calls_that_fill_costs_no_trade` |
| 418 with a ban end | `while_rest_is_blocked_the_socket_serves_and_nothing_is_asked`; during a fill: `a_block_that_begins_with_a_fill_is_waited_for` |
| `Remaining-Req` lying | `a_lying_remaining_req_leads_to_no_refusal` |
| truncated JSON | `an_answer_that_is_not_understood_is_an_error_and_the_next_one_counts`, `an_answer_that_was_cut_off_is_asked_for_again_and_an_outage_is_named` |
| wrong `to` boundary | `a_page_that_reaches_beyond_its_bound_is_refused` |
| 1-second-late trades | `trades_a_second_late_are_marked_and_revise_nothing_but_their_candle` |
| clock jump | `a_clock_that_jumps_costs_no_trade_and_closes_no_wrong_candle` |
| DST-free KST day line 09:00 | `a_day_turns_at_nine_in_seoul_whatever_the_local_clocks_do` |
| frames of every kind, at the resubscription | `a_fault_of_frames_at_the_resubscription_costs_no_trade` |
| frames lost on a living socket | `frames_lost_on_a_living_connection_are_noticed_and_filled`, `trades_lost_for_seconds_on_a_living_connection_are_all_found` |
| calls of every kind, during a fill | `a_fault_of_the_calls_that_fill_costs_no_trade` |
| disconnect during a fill | `a_connection_lost_again_while_a_gap_is_filled_costs_no_trade` |
| a fill that cannot be had at once | `a_fill_that_takes_too_long_is_announced_and_delivered_late` |
| REST down, socket alive | `while_rest_is_down_the_socket_answers_what_it_can` |
| shutdown during backoff, connect, handshake, resubscription, snapshot, fill, poll, block, partition, calls | `bad_input::the_service_ends_at_once_in_the_middle_of_everything` |

`famous_bugs` holds what other programs became known for, `bad_input` what callers and exchanges
should not do, and `benchmarks/faults.py` mixes twenty faults at random.
"""  # noqa: E501 - a table row is one line
