//! Many concurrent connections: all succeed, and they are spread by weight.

use crate::WEB;
use crate::world::World;

#[test]
fn two_hundred_parallel_curls_succeed_and_spread_evenly() {
    let world = World::new("curl");
    let _nginx = world.nginx();
    let gateway = world.start(&world.configuration("", &[WEB]));
    for family in [0, 1] {
        let started: Vec<_> = (0..200).map(|_| world.curl(family, "").spawn().unwrap()).collect();
        let mut answers = [0; 3];
        for curl in started {
            let output = curl.wait_with_output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
            answers[text.trim().parse::<usize>().expect("a server's number") - 1] += 1;
        }
        assert!(answers.iter().all(|n| (66..=67).contains(n)), "family {family}: {answers:?}");
    }
    let rows = world.server_rows();
    assert_eq!(rows.iter().map(|r| r.flows_total).sum::<u64>(), 400);
    let totals = world.totals();
    assert_eq!(totals.engine.flows_opened, 400);
    assert!(totals.engine.dropped.iter().all(|c| c.count == 0), "{:?}", totals.engine.dropped);
    assert!(gateway.terminate().success());
}
