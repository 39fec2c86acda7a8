//! Plays the same scripts on the kernel's ring and on the simulated one.
//!
//! What a script asserts is what a shard may rely on. Where the kernel may do one thing or another,
//! the script takes both, and the simulated ring does both, drawn by a seed. So whatever a shard
//! survives in the simulation it survives in the kernel, as far as these scripts go.

#![expect(clippy::disallowed_types, reason = "rings share the simulated host, in one thread")]

mod kernel_stage;
mod random;
mod scripts;
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
    shutting_a_listener_ends_its_accept,
    a_wake_up_is_seen_by_both,
    a_watched_eventfd_completes_once_for_each_watch,
    a_past_deadline_polls,
);

#[cfg(test)]
mod random_operations {
    use crate::kernel_stage::KernelStage;
    use crate::random::{Choices, play};
    use crate::sim_stage::SimStage;

    /// Seeds that are played on the kernel's ring, and on the simulated one.
    const KERNEL_SEEDS: u64 = 150;
    const SIM_SEEDS: u64 = 1_500;

    fn add(sum: &mut Choices, choices: Choices) {
        for (what, count) in choices {
            *sum.entry(what).or_default() += count;
        }
    }

    #[test]
    fn both_rings_keep_the_contract_and_the_simulated_one_makes_every_choice_of_the_kernel() {
        let (mut kernel, mut simulated) = (Choices::new(), Choices::new());
        for seed in 0..KERNEL_SEEDS {
            // A thread may register 16 rings, and only its end gives the places back.
            let played = std::thread::scope(|scope| {
                scope.spawn(|| play(&mut KernelStage::new(), seed)).join()
            });
            add(&mut kernel, played.unwrap_or_else(|_| panic!("seed {seed} on the kernel's ring")));
        }
        for seed in 0..SIM_SEEDS {
            add(&mut simulated, play(&mut SimStage::new(seed), seed));
        }
        for (what, count) in &kernel {
            let chosen = simulated.get(what).copied().unwrap_or(0);
            assert!(chosen > 0, "the kernel did this {count} times: {what}");
        }
        assert!(simulated.len() >= 7, "the seeds come by the choices: {simulated:?}");
    }
}
