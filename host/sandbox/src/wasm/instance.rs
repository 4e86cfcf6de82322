//! A fresh instance of a plugin, from its store to what is left of its guest.

use wasmtime::component::Instance;
use wasmtime::{Engine, Store, Trap, UpdateDeadline};

use super::component::Plugin;
use super::engine::KEEP_RESIDENT_BYTES;
use super::failure;
use super::guest::Guest;
use super::meter::HANDLES_MAX;
use super::schedule::Seat;
use super::timer::{self, Timer};
use waypost_domain::plugin::Failure;

/// Makes a fresh instance and asks it something within the time limit. Returns the guest that is left.
///
/// The instance is dropped during a turn of the guest, because freeing its memory takes longer than most calls.
pub(super) async fn ask_fresh<T>(
    plugin: &Plugin,
    guest: Guest,
    timer: &Timer,
    mut seat: Option<Seat>,
    ask: impl AsyncFnOnce(&mut Store<Guest>, Instance) -> wasmtime::Result<T>,
) -> (Result<T, Failure>, Guest) {
    const THERE: &str = "it is there until it is torn down";
    let mut kept = Some(store(plugin.pre.engine(), guest, timer.clone()));
    let asking = async {
        let store = kept.as_mut().expect(THERE);
        let answer = match plugin.pre.instantiate_async(&mut *store).await {
            Ok(instance) => {
                store.data_mut().began = true;
                ask(store, instance).await
            }
            Err(error) => Err(error),
        };
        let store = kept.take().expect(THERE);
        if store.data().meter.memory_bytes > KEEP_RESIDENT_BYTES {
            // Freeing that much may take longer than a tick. Otherwise this saves the system call.
            timer.read_thread_time();
        }
        (answer, store.into_data())
    };
    let ended = timer.limit(seat.as_mut(), asking).await;
    let (answer, guest) = match ended {
        Some((Ok(answer), guest)) => (Ok(answer), guest),
        Some((Err(error), guest)) => (Err(failure::of(&error, &guest)), guest),
        None => {
            let store = kept.take().expect(THERE);
            let guest = timer::in_turn(seat.as_mut(), || store.into_data()).await;
            (Err(Failure::Limit(failure::time_limit(&guest.limits))), guest)
        }
    };
    plugin.note_bytes(guest.meter.wanted_bytes);
    (answer, guest)
}

/// Makes a store whose guest yields at every tick, and ends when its time is over.
fn store(engine: &Engine, guest: Guest, timer: Timer) -> Store<Guest> {
    let handed_bytes = guest.limits.handed_bytes();
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.meter);
    store.set_hostcall_fuel(handed_bytes);
    store.set_max_component_handles(HANDLES_MAX);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        if timer.left_at_tick().is_zero() {
            return Err(Trap::Interrupt.into());
        }
        timer.give_way();
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
    store
}
