//! The world of namespaces, whole: each test is one of the testbed's checks, run against the real thing.
//!
//! They need root and change the machine while they run, so they are ignored unless asked for:
//! `testbed/test.sh` brings in what they need, runs them one at a time and takes the world down.

use std::fs::File;
use std::path::Path;
use std::process::Command;

/// The world, up and ours alone for as long as this lives.
struct World {
    /// Held until the test ends. `None` when the caller of the test holds it.
    _lock: Option<File>,
}

impl World {
    /// Brings the world up, or what has died in it; quick when it is up.
    fn up() -> World {
        let held = std::env::var_os("PORTCULLIS_LOCKED").is_some();
        let lock = (!held).then(|| {
            let file = File::create("/tmp/portcullis-netns.lock").expect("the lock can be made");
            file.lock().expect("the lock can be waited for");
            file
        });
        script("up.sh", &[]);
        World { _lock: lock }
    }

    fn check(&self, name: &str) {
        script("check.sh", &[name]);
    }
}

/// Runs a script of the testbed and fails with what it printed.
fn script(name: &str, args: &[&str]) {
    let answer = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .args(args)
        .env("PORTCULLIS_LOCKED", "1")
        .env("PORTCULLIS_BIN", binary())
        .env("PORTCULLIS_LOAD_BIN", env!("CARGO_BIN_EXE_portcullis-load"))
        .output()
        .expect("bash runs");
    let said = String::from_utf8_lossy(&answer.stdout);
    let complained = String::from_utf8_lossy(&answer.stderr);
    assert!(
        answer.status.success(),
        "{name} {args:?}: {}\n{said}{complained}",
        answer.status
    );
}

/// The binary of the same build: tests are in `deps/` beside it.
fn binary() -> std::path::PathBuf {
    if let Some(given) = std::env::var_os("PORTCULLIS_BIN") {
        return given.into();
    }
    let test = std::env::current_exe().expect("a running program has a path");
    test.ancestors()
        .nth(2)
        .expect("cargo puts tests two levels below")
        .join("portcullis")
}

/// One test per check: the test's name is the sentence it proves.
macro_rules! checks {
    ($($sentence:ident: $($check:literal),+;)+) => {
        $(
            #[test]
            #[ignore = "needs root and namespaces: testbed/test.sh"]
            fn $sentence() {
                let world = World::up();
                $(world.check($check);)+
            }
        )+

        /// Every check has a test, and no test names a check that is gone.
        #[test]
        fn every_check_of_the_testbed_is_a_test() {
            let mut tested = vec![$($($check),+),+];
            tested.sort_unstable();
            let files = [
                "paths",
                "faults",
                "underlay",
                "userspace",
                "names",
                "private",
                "range",
                "gre",
                "sites",
                "ecmp",
                "ipsec",
                "direct",
                "multi",
            ];
            let scripts = files.map(|subject| {
                let file = format!("checks-{subject}.sh");
                let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
                std::fs::read_to_string(path).expect("the checks are there")
            });
            let mut written: Vec<&str> = scripts
                .iter()
                .flat_map(|text| text.lines())
                .filter_map(|line| line.strip_prefix("check_")?.split_once("()"))
                .map(|(name, _)| name)
                .collect();
            written.sort_unstable();
            assert_eq!(tested, written);
        }
    };
}

checks! {
    ping_from_a_source_address_reaches_the_origin_of_its_vnet: "ping_default", "ping_second";
    http1_reaches_the_origin_of_the_names_vnet: "http1_default", "http1_second";
    tls_reaches_the_origin_of_the_names_vnet: "tls_default", "tls_second";
    http2_reaches_the_origin_of_the_names_vnet: "http2_default", "http2_second";
    an_ipv6_client_reaches_both_vnets: "ipv6_client";
    an_ipv6_origin_is_reached: "ipv6_origin";
    the_origin_sees_who_asked_and_how: "headers";
    a_tcp_app_reaches_the_redis_of_its_vnet: "redis_default", "redis_second";
    a_udp_app_reaches_the_dns_server_of_its_vnet: "dns_default", "dns_second";
    dns_leads_proxied_names_and_apps_to_the_edge: "names_proxied";
    dns_denies_what_is_not_there_and_refuses_what_is_not_ours: "names_denied";
    dns_answers_every_type_as_it_was_given: "names_types";
    an_exported_zone_is_read_by_bind: "names_file";
    a_changed_record_is_seen_by_the_next_question: "names_change";
    a_name_of_a_private_network_is_asked_for_inside_it: "private_names";
    an_answer_forged_in_another_network_is_not_believed: "private_names_forged";
    a_private_network_sees_the_source_range_that_its_account_chose: "source_range";
    an_origin_with_an_address_of_the_edges_machine_is_not_the_machine: "own_address";
    a_narrow_path_of_one_network_is_not_the_others: "narrow_path";
    services_of_the_edges_machine_are_not_for_private_networks: "closed_services";
    a_download_has_the_right_checksum: "download_default", "download_second";
    a_whole_gibibyte_has_the_right_checksum: "download_whole";
    up_and_download_at_once_are_whole: "both_directions";
    two_hundred_clients_at_once_get_no_error: "load";
    an_unknown_host_gets_a_page_that_says_so: "page_unknown_host";
    a_refusing_origin_is_a_521: "page_refused";
    a_silent_origin_is_a_522: "page_silent";
    a_slow_origin_is_a_524: "page_slow";
    an_address_without_a_route_is_a_530_or_523: "page_no_route";
    what_cannot_work_is_refused_with_a_code: "bad_configuration";
    forged_packets_are_dropped_counted_and_arrive_nowhere: "spoof";
    a_deleted_route_is_gone_in_100_ms_and_the_other_vnet_loses_nothing: "route_delete";
    a_deleted_tunnel_is_gone_in_100_ms_and_the_other_vnet_loses_nothing: "tunnel_delete";
    a_deleted_record_is_gone_in_100_ms_and_the_other_vnet_loses_nothing: "record_delete";
    a_killed_edge_is_back_whole_in_ten_seconds: "kill_and_recover";
    a_stopped_edge_leaves_nothing_in_the_kernel: "stop_and_start";
    a_lossy_path_loses_and_delays_what_was_asked_for_and_both_sides_use_bbr: "wan_path";
    a_peer_that_returns_with_another_address_keeps_its_flows: "roaming";
    a_million_packets_keep_their_order_in_32_tunnels: "order";
    bad_input_is_counted_and_costs_no_memory: "bad_input";
    a_handshake_flood_does_not_stop_the_tunnels_that_are_up: "handshake_flood";
    an_edge_without_privileges_serves_the_same_names: "userspace";
    a_real_kernels_gre_with_every_option_is_spoken_both_ways: "gre_linux";
    open_vswitch_is_spoken_gre_with_both_ways: "gre_ovs";
    sites_of_one_vnet_reach_each_other_whatever_their_kind: "site_to_site";
    nothing_of_another_vnet_with_the_same_addresses_arrives_at_a_site: "site_to_site_apart";
    flows_keep_to_one_tunnel_and_spread_by_weight: "ecmp_shares";
    a_cut_tunnel_hands_its_flows_over_and_the_others_lose_nothing: "ecmp_failover";
    the_next_priority_carries_all_where_all_tunnels_of_one_are_down: "ecmp_priority";
    strongswan_carries_a_vnet_that_the_api_made_and_may_crash: "ipsec_strongswan";
    strongswan_over_ipv6_carries_both_families: "ipsec_over_ipv6";
    our_own_site_carries_ipsec_and_answers_past_it: "ipsec_site";
    an_ethernet_port_is_the_routers_alone: "direct_port";
    a_neighbour_that_goes_is_missed_and_one_that_comes_back_found: "direct_neighbour";
    vlans_of_one_port_with_the_same_addresses_are_apart: "direct_vlans";
    answers_come_back_by_any_edge_of_a_fleet: "multi_return";
    what_comes_back_by_the_wrong_edge_is_relayed_once_and_only_within_its_vnet: "multi_once";
    a_killed_edge_takes_no_other_with_it_and_keeps_its_slice: "multi_killed";
    a_port_in_use_is_a_clear_error: "port_in_use";
    a_missing_privilege_is_a_clear_error: "no_privilege";
    a_missing_tun_device_is_a_clear_error: "no_tun";
}
