#!/bin/bash
# The crates maglev 0.2.1 and hashring 0.3.6: not what the papers they are named after promise.
#
# Expected: removing one of ten servers moves the keys of that server and, with Maglev, a percent or so of the others;
#   each of ten equal servers has about a tenth of the keys.
# Instead: Maglev::new sizes its table by the number of servers (the next prime above a hundred times as many), so a
#   server more or less changes the modulus and with it nearly everything: 89 % of the keys that could have stayed
#   move. With a fixed size (Maglev::with_capacity) it is 0.3 %. HashRing gives each server a single point on the ring
#   (no virtual nodes), so shares are as uneven as the gaps between ten random points: the least 0.4 %, the most
#   37 %.
# Why it matters for a balancer: the size of a Maglev table is part of the configuration that must not change with the
#   servers; "consistent" in a crate's name says nothing about balance.
#
# Seen, of 10,000 keys: maglev by default 1009 -> 907 entries, 8021 moved needlessly; with 65537 entries 28 moved;
#   hashring 36 to 3702 keys per server, 0 moved needlessly
#
# Needs: Rust (cargo 1.85 or later) and a C compiler's linker; no root.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/lib/common.sh"

fetch() {
    crate 'maglev = "=0.2.1"' 'hashring = "=0.3.6"' <<'R'
use hashring::HashRing;
use maglev::{ConsistentHasher, Maglev};
use std::collections::BTreeMap;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("server-{number}")).collect()
}

fn answers(pick: impl Fn(u32) -> String) -> Vec<String> {
    (0..10_000).map(pick).collect()
}

/// Keys that moved although their server is still there.
fn moved(ten: &[String], nine: &[String]) -> usize {
    ten.iter().zip(nine).filter(|(before, after)| before != after && *before != "server-9").count()
}

fn main() {
    for size in [None, Some(65_537)] {
        let table = |count| match size {
            None => Maglev::new(names(count)),
            Some(size) => Maglev::with_capacity(names(count), size),
        };
        let (ten, nine) = (table(10), table(9));
        let before = answers(|key| ten.get(&key).unwrap().clone());
        let after = answers(|key| nine.get(&key).unwrap().clone());
        println!("maglev {} {} {}", ten.capacity(), nine.capacity(), moved(&before, &after));
    }
    let ring = |count| {
        let mut ring = HashRing::new();
        names(count).into_iter().for_each(|name| ring.add(name));
        ring
    };
    let (ten, nine) = (ring(10), ring(9));
    let before = answers(|key| ten.get(&key).unwrap().clone());
    let after = answers(|key| nine.get(&key).unwrap().clone());
    let mut shares: BTreeMap<String, usize> = names(10).into_iter().map(|name| (name, 0)).collect();
    before.iter().for_each(|name| *shares.get_mut(name).unwrap() += 1);
    let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
    println!("hashring {least} {most} {}", moved(&before, &after));
}
R
}

check() {
    crate_output | tee out
    same 'sizes of the default tables for 10 and 9 servers' '1009 907' "$(sed -n 1p out | cut -d' ' -f2,3)"
    same 'most keys move needlessly by default' yes "$(sed -n 1p out | awk '$4 > 7000 { print "yes" }')"
    same 'hardly any with a fixed size' yes "$(sed -n 2p out | awk '$4 < 200 { print "yes" }')"
    same 'hashring: the least has under a tenth of its due, the most over twice' yes \
        "$(sed -n 3p out | awk '$2 < 100 && $3 > 2000 { print "yes" }')"
}

finding
