//! The list of all cases: who makes the capture, and the rule that it shows.
//!
//! It must not say what comes of a case; its files do.

cases! {
    /// A connection opens, carries data both ways and closes; all of it goes to one server (RFC 9293, 3.5 and 3.6).
    tcp::a_connection_opens_carries_data_and_closes;
    /// One service and one pool serve IPv4 and IPv6 (RFC 791; RFC 8200, 3).
    tcp::both_families_reach_one_service;
    /// A SYN that comes again belongs to the flow that the first one opened (RFC 9293, 3.8.1).
    tcp::a_retransmitted_syn_is_not_a_new_flow;
    /// A SYN with other numbers in an opening flow goes to the same server, which judges it (RFC 9293, 3.10.7.4).
    tcp::a_syn_of_other_numbers_on_a_half_open_flow_stays_with_its_server;
    /// A SYN of the same ports is a new connection once both ends have sent their FIN (RFC 9293, 3.6.1 and 3.10.7.4; RFC 6191).
    tcp::a_syn_on_a_closing_flow_opens_a_new_flow;
    /// A SYN of the same ports is a new connection after an exact reset (RFC 9293, 3.10.7.4).
    tcp::a_syn_after_a_believed_reset_opens_a_new_flow;
    /// A SYN in a live connection passes to the server, whose challenge ACK it is, and changes nothing (RFC 5961, 4.2).
    tcp::a_syn_on_an_established_flow_does_not_replace_it;
    /// A reset that stands elsewhere than at the next number passes and shortens no life (RFC 5961, 3.2).
    tcp::a_reset_outside_the_window_does_not_end_a_flow;
    /// After a reset at the exact number a flow is kept for four minutes more (RFC 7857, 2.2).
    tcp::a_flow_ends_four_minutes_after_an_exact_reset;
    /// A second reset does not prolong what the first one ended (RFC 6146, 3.5.2.2; RFC 7857, 2.2).
    tcp::a_repeated_reset_does_not_prolong_a_flow;
    /// Data after an exact reset shows that the ends did not believe it: the flow lives on (RFC 7857, 2.2).
    tcp::data_after_an_exact_reset_revives_the_flow;
    /// Nothing but the client's acknowledgement of the server's own number makes a flow live long, whatever a stranger guesses (RFC 9293, 3.5; RFC 6146, 3.5.2.2).
    tcp::a_reset_in_the_handshake_is_no_way_to_establish;
    /// A SYN that was refused and comes again may be accepted, and lives as long as any connection (RFC 9293, 3.10.7.3; RFC 5382 REQ-5).
    tcp::a_connection_refused_at_first_and_accepted_then_establishes;
    /// What the other end sent before it heard of a reset is no traffic that goes on (RFC 7857, 2.2).
    tcp::what_was_under_way_at_a_reset_does_not_revive_the_flow;
    /// A server's refusal reaches the client as the service's (RFC 9293, 3.5.2).
    tcp::a_refused_connection_is_refused_to_the_client;
    /// After one FIN the other way stays open for as long as an established flow (RFC 9293, 3.6; RFC 5382 REQ-2).
    tcp::a_half_closed_connection_still_carries_data;
    /// Two SYNs that cross open one connection (RFC 9293, 3.5, figure 8; RFC 5382 REQ-2a).
    tcp::a_simultaneous_open_establishes;
    /// Sequence numbers are counted modulo 2^32 (RFC 9293, 3.4).
    tcp::sequence_numbers_wrap;
    /// A segment of no connection is answered with a reset that takes its numbers from it (RFC 9293, 3.5.2 and 3.10.7.1).
    tcp::a_segment_of_no_flow_is_reset;
    /// A reset is never answered (RFC 9293, 3.10.7.1).
    tcp::a_reset_of_no_flow_is_not_answered;
    /// Who answers as a TCP checks the sum first (RFC 9293, 3.1).
    tcp::a_segment_of_no_flow_with_a_wrong_sum_is_not_answered;
    /// With `unknown-tcp = "drop"` a segment of no connection gets no answer (RFC 5382 REQ-4 leaves the choice).
    tcp::a_segment_of_no_flow_is_dropped_where_the_service_says_so;
    /// Options, urgent pointer, ECN flags and the data of a SYN are the ends' affair (RFC 9293, 3.2; RFC 7413, 4.1.2).
    tcp::tcp_options_urgent_data_and_data_on_a_syn_pass;
    /// A flow whose handshake is not complete lives four minutes after its last packet (RFC 5382 REQ-5).
    timeouts::a_half_open_flow_expires_after_four_minutes;
    /// Without the client's last acknowledgement a flow stays half open (RFC 9293, 3.5; RFC 7857, 2.1).
    timeouts::syn_and_syn_ack_repeated_never_establish;
    /// An established flow lives two hours and four minutes after the last packet of either end (RFC 5382 REQ-5).
    timeouts::an_established_flow_lives_two_hours_and_four_minutes;
    /// A flow with both FINs is kept for four minutes, so that the last ones can be repeated (RFC 5382 REQ-5; RFC 9293, 3.6.1).
    timeouts::a_closed_flow_is_kept_four_minutes;
    /// A UDP flow lives five minutes after its last datagram; the next one opens a new flow (RFC 4787 REQ-5).
    timeouts::an_idle_udp_flow_expires_after_five_minutes_and_the_next_datagram_is_a_new_flow;
    /// Datagrams of either side alone keep a UDP flow (RFC 4787 REQ-6).
    timeouts::either_side_keeps_a_udp_flow_alive;
    /// A service's own timeouts hold for its flows, to the second (RFC 4787 REQ-5b).
    timeouts::a_service_has_timeouts_of_its_own;
    /// DNS may live 30 s beside other ports' 300 s (RFC 4787 REQ-5a: ports 0 to 1023 may be shorter).
    timeouts::a_port_has_timeouts_of_its_own;
    /// With `unknown-tcp = "adopt"` a connection goes on without its handshake, established by the client's acknowledgement (RFC 7857, 2.1).
    timeouts::a_segment_of_no_flow_is_adopted_where_the_service_says_so;
    /// Questions go to a server, its answers come from the service (RFC 768; RFC 3022, 4.1).
    udp::udp_goes_both_ways;
    /// A UDP checksum of zero says that there is none, and stays zero (RFC 768; over IPv6 its receiver judges: RFC 8200, 8.1).
    udp::an_absent_udp_checksum_stays_absent;
    /// A UDP checksum that would become zero is sent as all ones (RFC 768; RFC 8200, 8.1).
    udp::a_udp_checksum_that_becomes_zero_leaves_as_all_ones;
    /// A UDP checksum of all ones is a sum and is translated like every other (RFC 768; RFC 1624, 3).
    udp::a_udp_checksum_of_all_ones_is_one;
    /// Smooth weighted round robin gives exactly the weights, without runs; a flow keeps its server (RFC 2391, 3).
    balance::weights_of_3_2_1_spread_twelve_connections_6_4_2;
    /// Two servers, sticky by address, requests 1 and 2 of client 1, 3 of client 2, 4 of client 3: a remembered client takes no turn (the appliance manuals' own case).
    balance::round_robin_with_sticky_clients_gives_servers_1_1_2_1;
    /// The same requests: those of remembered clients count, so that the third client goes where fewer came (the appliance manuals' own case).
    balance::connection_rate_with_sticky_clients_gives_servers_1_1_2_2;
    /// A server of weight 0 is no candidate (the configuration's own rule).
    balance::a_server_of_weight_zero_gets_no_new_flow;
    /// A flow of a family goes to servers that have an address of that family (RFC 8200 and RFC 791 do not mix).
    balance::a_server_without_an_address_of_the_family_is_passed_over;
    /// Where a server has no port of its own, each port of a range goes to the same port (the configuration's own rule).
    balance::a_port_of_a_range_stays_the_same;
    /// Of an address and the networks around it the longest prefix that has the port takes the packet (as routes do: RFC 1812, 5.2.4.3).
    balance::a_service_on_a_network_takes_what_no_longer_prefix_takes;
    /// With nothing to give up a full table refuses new flows, and no live flow suffers (RFC 6888 REQ-11).
    balance::a_full_table_refuses_what_is_new_and_keeps_what_is_established;
    /// A full table gives up what is half open, the oldest first, before anything that has been answered (RFC 6888 REQ-11).
    balance::a_full_table_gives_up_the_oldest_half_open_flow_first;
    /// Two flows never share the key of their answers: the second goes to another server, or is refused (RFC 3022, 2.2).
    balance::a_return_key_in_use_leads_to_another_server_or_is_refused;
    /// The gateway answers an echo request to a service address itself, with identifier, number and data (RFC 792; RFC 4443, 4.2).
    icmp::an_echo_request_to_a_service_address_is_answered;
    /// An ICMP message with a wrong sum is dropped in silence (RFC 5508 REQ-3; RFC 4443, 2.3).
    icmp::an_echo_request_with_a_wrong_sum_is_dropped;
    /// A service that listens for ICMP gets its echo requests, a flow an identifier, for 60 seconds (RFC 5508 REQ-1 and REQ-2).
    icmp::an_echo_request_to_a_service_that_listens_goes_to_a_server;
    /// What a server does on its own account is foreign traffic (RFC 4787 REQ-8: one behaviour, and told).
    icmp::a_servers_own_traffic_passes;
    /// What belongs to no service is forwarded octet by octet (RFC 1812, 5.2).
    policy::foreign_traffic_passes_unchanged;
    /// What a server sends from its service port and belongs to no flow is not let out untranslated (RFC 4787 REQ-8; RFC 5382 REQ-3).
    policy::a_stray_from_a_servers_service_port_is_dropped;
    /// Each port, protocol and message that a service address does not offer is dropped by its name (RFC 5382 REQ-4 leaves silence).
    policy::what_a_service_address_does_not_offer_is_dropped_by_name;
    /// Unspecified, loopback, multicast, reserved and the service's own source address open no flow and get no answer (RFC 1122, 3.2.1.3; RFC 4291, 2.5 and 2.7).
    policy::a_source_that_cannot_be_answered_opens_no_flow;
    /// Hops are counted by the kernel's routing, not once more by the gateway (RFC 1812, 5.3.1; RFC 8200, 3).
    headers::ttl_and_hop_limit_are_left_to_the_kernel;
    /// Traffic class, ECN, identification, DF and flow label stay as they came (RFC 2474; RFC 3168, 5; RFC 6864, 5.3; RFC 6437, 2).
    headers::all_fields_that_are_not_translated_stay;
    /// IPv4 options are skipped and kept, and the header's sum is patched (RFC 791, 3.1; RFC 3022, 4.1).
    headers::ipv4_options_are_kept;
    /// IPv6 extension headers are walked and kept, atomic fragments are whole packets, what is routed on is not translated (RFC 8200, 4 and 8.1; RFC 6946, 4).
    headers::ipv6_extension_headers_are_kept;
    /// A checksum that holds only the pseudo-header's sum is patched as that (virtio 1.2, 5.1.6.2).
    headers::a_partial_checksum_stays_partial;
    /// Sums are patched and never made anew, so damage on the way stays visible (RFC 1624, 3).
    headers::a_wrong_checksum_stays_wrong_for_its_receiver_to_find;
    /// Octets behind the IP packet are the link's and are left behind (RFC 894).
    headers::padding_behind_a_packet_is_not_sent_on;
    /// No octets, too few of them, and other versions than 4 and 6 (RFC 1812, 5.2.2).
    malformed::a_packet_that_is_no_ip_packet_is_dropped;
    /// Header length, total length, header checksum (RFC 1812, 5.2.2).
    malformed::a_broken_ipv4_header_is_dropped;
    /// Payload length and extension headers (RFC 8200, 3 and 4).
    malformed::a_broken_ipv6_header_is_dropped;
    /// Cut off, data offset, flags that contradict each other (RFC 9293, 3.1).
    malformed::a_broken_tcp_header_is_dropped;
    /// Cut off, length under 8 or beyond the packet (RFC 768).
    malformed::a_broken_udp_header_is_dropped;
    /// Cut off, sum of what is not there, code, the other family's ICMP (RFC 792; RFC 4443, 2.1 and 4.1).
    malformed::a_broken_icmp_header_is_dropped;
    /// A VLAN tag goes out as it came in (IEEE 802.1Q, 9.6).
    links::vlan_tags_are_kept;
    /// Two VLAN tags go out as they came in (IEEE 802.1ad).
    links::stacked_vlan_tags_are_kept;
    /// LINKTYPE_RAW: the IP packet alone.
    links::a_raw_ip_capture_is_replayed;
    /// LINKTYPE_LINUX_SLL, as of `tcpdump -i any`.
    links::a_linux_cooked_capture_is_replayed;
    /// LINKTYPE_LINUX_SLL2.
    links::a_linux_cooked_capture_of_version_2_is_replayed;
    /// LINKTYPE_NULL, the address family in the order of a little-endian machine.
    links::a_null_capture_is_replayed;
    /// LINKTYPE_LOOP, the address family in the order of the net.
    links::a_loop_capture_is_replayed;
    /// LINKTYPE_PPP, in HDLC-like framing (RFC 1662, 3.1).
    links::a_ppp_capture_is_replayed;
    /// PPPoE: its length is that of what goes out (RFC 2516, 4).
    links::a_pppoe_session_is_kept_and_tells_the_length_of_what_it_carries;
    /// MPLS labels go out as they came in (RFC 3032, 2.1).
    links::mpls_labels_are_kept;
    /// IEEE 802.3 with LLC and SNAP: the length is that of what goes out (RFC 1042).
    links::a_snap_header_is_kept_and_tells_the_length_of_what_follows;
    /// pcap with nanoseconds (pcap-savefile(5)).
    links::a_nanosecond_pcap_keeps_its_nanoseconds;
    /// pcap in the order of a big-endian machine (pcap-savefile(5)).
    links::a_big_endian_pcap_is_replayed;
    /// pcapng, big-endian, with if_tsresol of 2^-20 s and if_tsoffset (pcapng, 4.2).
    links::a_big_endian_pcapng_with_its_own_clock_is_replayed;
    /// gzip around pcap (RFC 1952).
    links::a_gzipped_pcap_is_replayed;
    /// pcapng with interfaces of three link types: each packet leaves by its own (pcapng, 4.2).
    links::interfaces_of_several_link_types_are_kept_apart;
    /// Frames without an IP packet, or with only a part of it captured, are told and not judged.
    links::a_frame_without_a_whole_ip_packet_is_skipped;
    /// Time never runs backwards for the engine: a frame from the past is taken at the time before (the engine's contract).
    links::a_frame_from_the_past_counts_as_of_the_time_before;
    /// What is remembered of a client ends with its server's standing, even if the server comes back.
    standing::a_sticky_client_leaves_a_server_that_drains_and_does_not_come_back;
    /// Resets go to both ends at the numbers that they expect (RFC 9293, 3.10.7; RFC 5961, 3.2).
    standing::a_server_that_goes_down_has_its_connections_reset_at_both_ends;
    /// A UDP client that goes on sending reaches a live server with its next datagram.
    standing::a_datagram_goes_to_another_server_when_its_own_is_down;
    /// Draining keeps flows and takes no new ones; at the deadline what is left is reset.
    standing::a_draining_server_keeps_its_flows_until_the_deadline;
    /// A reset (RFC 9293, 3.10.7.1), or port unreachable (RFC 792; RFC 4443, 3.1).
    standing::a_service_without_a_server_answers_as_its_last_resort_says;
    /// Drop, reject (RFC 1812, 5.2.7.1), a limit a client; live flows stay when a rule changes.
    standing::rules_decide_first_match_first_and_can_be_switched_off;
    /// Two refusals in a row take a server out, two answers bring it back.
    standing::probes_in_a_capture_drive_the_monitors;
    /// Refused connections take a server out of the choice.
    standing::signs_of_trouble_keep_a_server_out_for_a_while;
    /// A packet-too-big from behind the gateway is translated, quote and all, and reaches the client in the service's name (RFC 5508 REQ-5; RFC 4787 REQ-12; RFC 1191; RFC 8201).
    errors::packet_too_big_from_behind_reaches_the_client;
    /// An ICMP error from the clients' side is translated for the server about the answer that it sent (RFC 5508 REQ-4; RFC 5382 REQ-9).
    errors::packet_too_big_from_the_clients_side_reaches_the_server;
    /// Quotes with IP options, extension headers, eight octets of transport or RFC 4884 extensions lead to their flow (RFC 5508 REQ-3b to 3d).
    errors::an_error_is_translated_however_its_quote_is_written;
    /// Errors with wrong sums, of impossible numbers or MTUs, of no flow, and obsolete ones go nowhere (RFC 5508 REQ-3; RFC 5927, 4; RFC 6633; RFC 8201, 4).
    errors::errors_that_cannot_be_true_are_dropped_by_name;
    /// No ICMP error, however hard, refreshes or ends a flow (RFC 5508 REQ-6; RFC 5382 REQ-10; RFC 4787 REQ-12; RFC 7857, 2.2).
    errors::an_error_neither_refreshes_nor_ends_a_flow;
    /// Fragments go where the first of their packet goes, in whatever order they come (RFC 4787 REQ-14).
    fragments::fragments_follow_their_first_one_in_any_order;
    /// A fragment that overlaps another spoils its packet; a repetition is dropped (RFC 5722, 4; RFC 1858, 4).
    fragments::overlapping_fragments_spoil_their_packet;
    /// Fragments that could hide or overwrite a transport header, and such as cannot be, are dropped (RFC 1858, 3; RFC 3128; RFC 791, 3.2).
    fragments::tiny_fragments_are_dropped;
    /// A flood of fragments displaces old fragments, and no whole packet (RFC 4787 REQ-14a).
    fragments::a_flood_of_fragments_hurts_no_whole_packet;
    /// The fragments of a packet have five seconds, from the first that came (RFC 6146, 4: at least two).
    fragments::fragments_have_five_seconds;
    /// An ICMP error that quotes a later fragment is translated like any other (RFC 5508 REQ-4; RFC 792).
    fragments::an_error_about_a_later_fragment_finds_its_flow;
    /// An echo request in fragments is answered (RFC 1122, 3.2.2.6).
    fragments::a_long_echo_request_is_answered_in_the_pieces_it_came_in;
    /// A packet that may not be fragmented and is too big for its way is answered with the MTU (RFC 4787 REQ-13; RFC 1191, 4; RFC 8200, 5).
    way::what_is_too_big_is_answered_with_the_mtu_of_the_way;
    /// A packet that may be fragmented and is too big for its way goes on in fragments, in order (RFC 4787 REQ-13a; RFC 791, 3.2; RFC 6864, 5.3.1).
    way::what_may_be_fragmented_goes_on_in_pieces;
    /// A packet whose hops end behind the gateway is answered in the service's name, so that the sender knows its packet again (RFC 1812, 5.3.1; RFC 4443, 3.3).
    way::the_last_hop_is_answered_in_the_services_name;
    /// No ICMP error is sent about ICMP errors, about later fragments, or to a source that is nobody (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7).
    way::no_error_is_sent_about_an_error_or_to_nobody;
    /// Resets and ICMP errors are limited (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f).
    way::answers_are_limited;
    /// With `mss-clamp = "auto"` the segment size in a SYN fits the known ways (RFC 9293, 3.7.1).
    way::the_segment_size_of_a_syn_is_lowered_where_the_service_asks;
    /// With full NAT no two flows share a source port, and every port is used before one is refused (RFC 4787 REQ-3; RFC 5382 REQ-7).
    nat::full_nat_gives_each_flow_a_port_of_its_own;
    /// Where no source port is left the client is told, ICMP type 3 code 13, and flows that exist go on (RFC 5508 REQ-8; RFC 6888 REQ-11).
    nat::who_finds_no_port_is_told_that_it_is_prohibited;
    /// The same with type 3 code 1, where the settings say so (RFC 6888 REQ-11).
    nat::who_finds_no_port_is_told_that_the_host_is_unreachable;
    /// A source port rests for 120 s before another flow gets it (RFC 6888 REQ-8).
    nat::a_freed_port_rests_for_two_minutes;
    /// Even ports become even ones, odd ones odd ones, and ports under 1024 stay there (RFC 4787 REQ-3a and REQ-4).
    nat::a_source_port_keeps_parity_and_range_where_that_is_asked_for;
    /// All flows of a client have one address of the NAT pool (RFC 4787 REQ-2, paired).
    nat::a_client_has_one_source_address;
    /// A server reaches its own service, and even itself, by the gateway's address (RFC 4787 REQ-9; RFC 5382 REQ-8).
    nat::a_server_reaches_its_own_service;
    /// ICMP errors about flows between servers reach the end that is meant, from the address that it knows (RFC 5508 REQ-7).
    nat::an_error_about_a_hairpinned_flow_reaches_who_asked;
    /// A packet to an address of a NAT pool that belongs to no flow is not passed on (RFC 4787 REQ-8; RFC 5382 REQ-3).
    nat::what_comes_to_a_source_address_of_no_flow_goes_nowhere;
    /// Packets of different ends that get one address keep apart by their identifications where they come in fragments (RFC 6864, 5.3.1).
    nat::fragments_of_different_ends_never_become_one_packet;
    /// An IPv6 service over IPv4 servers: TCP, UDP, fragments, echo and errors in both directions, sums neutral (RFC 6146; RFC 7915, 4 and 5).
    nat::ipv6_clients_reach_ipv4_servers;
    /// An IPv4 service over IPv6 servers: an absent UDP sum is computed, what is longer than 1,280 is cut or answered, source routes end here (RFC 7915, 4 and 5).
    nat::ipv4_clients_reach_ipv6_servers;
    /// GRE and ESP are balanced by addresses alone, fragments included; a protocol that nobody offers is answered (RFC 792; RFC 4443, 3.4).
    nat::gre_and_esp_go_by_addresses_alone;
    /// SCTP goes by its ports, and its CRC32c is right behind the translation if it was right before (RFC 9260, 6.8).
    nat::sctp_goes_by_its_ports_and_its_sum_stays_right;
}
