//! Plays the same scripts on the kernel's ring and on the simulated one.
//!
//! What a script asserts is what a shard may rely on. Where the kernel may do one thing or another,
//! the script takes both, and the simulated ring does both, drawn by a seed. So whatever a shard
//! survives in the simulation it survives in the kernel, as far as these scripts go.

#![expect(clippy::disallowed_types, reason = "rings share the simulated host, in one thread")]

mod choices;
mod kernel_stage;
mod random;
mod scripts;
mod seeds;
mod sim_stage;
mod stage;

/// Instantiates each script for both rings.
macro_rules! conform {
    ($($script:ident),+ $(,)?) => {
        #[cfg(test)]
        mod on_the_kernel {
            $(
                #[test]
                fn $script() {
                    crate::scripts::$script(&mut crate::kernel_stage::KernelStage::new());
                }
            )+
        }

        #[cfg(test)]
        mod on_the_kernel_over_unix_sockets {
            $(
                #[test]
                fn $script() {
                    let mut stage = crate::kernel_stage::KernelStage::over_unix_sockets();
                    crate::scripts::$script(&mut stage);
                }
            )+
        }

        #[cfg(test)]
        mod simulated {
            $(
                #[test]
                fn $script() {
                    for seed in 0..crate::sim_stage::SEEDS {
                        crate::scripts::$script(&mut crate::sim_stage::SimStage::new(seed));
                    }
                }
            )+
        }
    };
}

conform!(
    accepts_several_and_receives_what_they_send,
    one_accept_takes_one_of_several_and_leaves_the_others_waiting,
    an_accept_of_one_waits_and_can_be_cancelled,
    a_small_batch_loses_no_completion,
    a_half_closed_peer_is_still_sent_to,
    a_reset_ends_receives_and_sends,
    a_large_send_arrives_whole_and_in_order,
    spans_of_both_regions_are_one_stream,
    a_cancelled_receive_loses_no_bytes,
    a_cancellation_of_nothing_completes,
    without_buffers_nothing_is_lost,
    closing_with_an_armed_receive_tells_the_peer_nothing,
    shutting_both_ways_ends_an_armed_receive,
    shutting_a_listener_and_cancelling_its_accept_ends_it,
    a_wake_up_is_seen_by_both,
    a_watched_eventfd_completes_once_for_each_watch,
    a_past_deadline_polls,
);

#[cfg(test)]
mod random_operations {
    #[test]
    fn both_rings_keep_the_contract_and_the_simulated_one_makes_every_choice_of_the_kernel() {
        crate::seeds::play_both();
    }
}
