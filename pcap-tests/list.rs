//! The list of all cases: the function that makes the capture, and the rule that it demonstrates.
//!
//! It must not contain results; these are in the files of the case.

cases! {
    /// A connection opens, carries data in both directions and closes; one server gets all of it (RFC 9293, 3.5 and 3.6).
    tcp::a_connection_opens_carries_data_and_closes;
    /// One service with one pool serves IPv4 and IPv6 (RFC 791; RFC 8200, 3).
    tcp::both_families_reach_one_service;
    /// A retransmitted SYN belongs to the flow that the first one opened (RFC 9293, 3.8.1).
    tcp::a_retransmitted_syn_is_not_a_new_flow;
    /// A SYN with other sequence numbers in an opening flow is forwarded to the same server, which decides about it (RFC 9293, 3.10.7.4).
    tcp::a_syn_of_other_numbers_on_a_half_open_flow_stays_with_its_server;
    /// Once both ends have sent a FIN, a SYN with the same ports opens a new connection (RFC 9293, 3.6.1 and 3.10.7.4; RFC 6191).
    tcp::a_syn_on_a_closing_flow_opens_a_new_flow;
    /// After a reset with the exact sequence number, a SYN with the same ports opens a new connection (RFC 9293, 3.10.7.4).
    tcp::a_syn_after_a_believed_reset_opens_a_new_flow;
    /// A SYN in an established connection is forwarded to the server, which sends the challenge ACK, and changes nothing (RFC 5961, 4.2).
    tcp::a_syn_on_an_established_flow_does_not_replace_it;
    /// A server that refuses a SYN on an established flow does not know its connection: the flow is over, and a SYN picks a server anew if nothing follows for 1 s (RFC 9293, 3.10.7.1; RFC 5961, 4).
    tcp::a_refusal_of_another_connection_ends_an_established_flow;
    /// A connection that both ends have closed or one has reset yields its return key to a new one: two service addresses on one server work from one client port.
    tcp::a_connection_that_is_over_yields_its_return_key;
    /// A server that sends on a connection of no flow gets a reset, and so does the client if it can only be one service's (RFC 9293, 3.10.7.1).
    tcp::both_ends_of_a_connection_that_is_not_known_hear_of_it;
    /// A reset that does not have the next sequence number is forwarded and does not shorten the timeout (RFC 5961, 3.2).
    tcp::a_reset_outside_the_window_does_not_end_a_flow;
    /// After a reset with the exact sequence number, a flow is kept for another four minutes (RFC 7857, 2.2).
    tcp::a_flow_ends_four_minutes_after_an_exact_reset;
    /// A second reset does not extend the timeout that the first one started (RFC 6146, 3.5.2.2; RFC 7857, 2.2).
    tcp::a_repeated_reset_does_not_prolong_a_flow;
    /// Data after an exact reset shows that the ends did not accept the reset: the flow continues (RFC 7857, 2.2).
    tcp::data_after_an_exact_reset_revives_the_flow;
    /// Only the client's acknowledgement of the server's sequence number establishes a flow, whatever a third party guesses (RFC 9293, 3.5; RFC 6146, 3.5.2.2).
    tcp::a_reset_in_the_handshake_is_no_way_to_establish;
    /// A SYN that is retransmitted after a refusal can be accepted, and the flow then lives as long as any other (RFC 9293, 3.10.7.3; RFC 5382 REQ-5).
    tcp::a_connection_refused_at_first_and_accepted_then_establishes;
    /// Segments that the other end sent before it received a reset do not count as continued traffic (RFC 7857, 2.2).
    tcp::what_was_under_way_at_a_reset_does_not_revive_the_flow;
    /// A refusal by the server reaches the client as a refusal by the service (RFC 9293, 3.5.2).
    tcp::a_refused_connection_is_refused_to_the_client;
    /// After one FIN, the other direction stays open for as long as an established flow (RFC 9293, 3.6; RFC 5382 REQ-2).
    tcp::a_half_closed_connection_still_carries_data;
    /// Two SYNs that cross open one connection (RFC 9293, 3.5, figure 8; RFC 5382 REQ-2a).
    tcp::a_simultaneous_open_establishes;
    /// Sequence numbers are compared modulo 2^32 (RFC 9293, 3.4).
    tcp::sequence_numbers_wrap;
    /// A segment without a connection is answered by a reset with the numbers that the segment implies (RFC 9293, 3.5.2 and 3.10.7.1).
    tcp::a_segment_of_no_flow_is_reset;
    /// A reset is never answered (RFC 9293, 3.10.7.1).
    tcp::a_reset_of_no_flow_is_not_answered;
    /// The checksum is verified before a segment is answered (RFC 9293, 3.1).
    tcp::a_segment_of_no_flow_with_a_wrong_sum_is_not_answered;
    /// With `unknown-tcp = "drop"`, a segment without a connection is not answered (RFC 5382 REQ-4 leaves the choice).
    tcp::a_segment_of_no_flow_is_dropped_where_the_service_says_so;
    /// Options, urgent pointer, ECN flags and data on a SYN are forwarded as they are (RFC 9293, 3.2; RFC 7413, 4.1.2).
    tcp::tcp_options_urgent_data_and_data_on_a_syn_pass;
    /// A flow whose handshake is incomplete expires four minutes after its SYN, whatever follows (RFC 5382 REQ-5).
    timeouts::a_half_open_flow_expires_four_minutes_after_its_first_packet;
    /// Without the client's final acknowledgement, a flow stays half-open (RFC 9293, 3.5; RFC 7857, 2.1).
    timeouts::syn_and_syn_ack_repeated_never_establish;
    /// An established flow expires two hours and four minutes after the last packet of either end (RFC 5382 REQ-5).
    timeouts::an_established_flow_lives_two_hours_and_four_minutes;
    /// A flow with both FINs is kept for four minutes, so that the last segments can be retransmitted (RFC 5382 REQ-5; RFC 9293, 3.6.1).
    timeouts::a_closed_flow_is_kept_four_minutes;
    /// A UDP flow expires five minutes after its last datagram; the next datagram opens a new flow (RFC 4787 REQ-5).
    timeouts::an_idle_udp_flow_expires_after_five_minutes_and_the_next_datagram_is_a_new_flow;
    /// Datagrams from either side alone keep a UDP flow alive (RFC 4787 REQ-6).
    timeouts::either_side_keeps_a_udp_flow_alive;
    /// The timeouts of a service apply to its flows, to the second (RFC 4787 REQ-5b).
    timeouts::a_service_has_timeouts_of_its_own;
    /// One port can have a timeout of 30 s while the next has 300 s (RFC 4787 REQ-5a: ports 0 to 1023 may be shorter; REQ-5b).
    timeouts::a_port_has_timeouts_of_its_own;
    /// A UDP flow to port 53 lives for 30 s, and one to 123 or 161 for 60 s (RFC 4787 REQ-5a: ports 0 to 1023 may be shorter).
    timeouts::a_question_to_a_well_known_port_lives_half_a_minute_or_a_minute;
    /// Configured timeouts of a service win over the short ones of well-known ports (RFC 4787 REQ-5b).
    timeouts::the_timeouts_of_a_service_win_over_those_of_well_known_ports;
    /// With `unknown-tcp = "adopt"`, a connection continues without its handshake, established by the client's acknowledgement (RFC 7857, 2.1).
    timeouts::a_segment_of_no_flow_is_adopted_where_the_service_says_so;
    /// With `unknown-tcp = "adopt"`, a server that goes on with a connection of no flow makes it again where it can be only one service's; the client's reset of what it does not know gives it up (RFC 9293, 3.10.7.1).
    tcp::a_servers_segment_of_no_flow_is_adopted_where_it_can_be_only_one_services;
    /// Requests are forwarded to a server, and replies come from the service (RFC 768; RFC 3022, 4.1).
    udp::udp_goes_both_ways;
    /// A UDP checksum of zero means that there is none, and stays zero (RFC 768; over IPv6 the receiver decides: RFC 8200, 8.1).
    udp::an_absent_udp_checksum_stays_absent;
    /// A UDP checksum that would become zero is sent as all ones (RFC 768; RFC 8200, 8.1).
    udp::a_udp_checksum_that_becomes_zero_leaves_as_all_ones;
    /// A UDP checksum of all ones is a checksum and is updated like any other (RFC 768; RFC 1624, 3).
    udp::a_udp_checksum_of_all_ones_is_one;
    /// Smooth weighted round robin matches the weights exactly and without runs; a flow keeps its server (RFC 2391, 3).
    balance::weights_of_3_2_1_spread_twelve_connections_6_4_2;
    /// Two servers, sticky by address, requests 1 and 2 from client 1, 3 from client 2, 4 from client 3: a remembered client does not take a turn (the example in appliance manuals).
    balance::round_robin_with_sticky_clients_gives_servers_1_1_2_1;
    /// The same requests: those of remembered clients count, so the third client gets the server with fewer connections (the example in appliance manuals).
    balance::connection_rate_with_sticky_clients_gives_servers_1_1_2_2;
    /// A server with weight 0 gets no new flows (rule of the configuration).
    balance::a_server_of_weight_zero_gets_no_new_flow;
    /// Flows of a family are assigned to servers that have an address of that family (RFC 8200 and RFC 791 do not mix).
    balance::a_server_without_an_address_of_the_family_is_passed_over;
    /// If a server has no port of its own, each port of a range maps to the same port (rule of the configuration).
    balance::a_port_of_a_range_stays_the_same;
    /// If an address and networks that contain it have services, the longest prefix with the port wins (as for routes: RFC 1812, 5.2.4.3).
    balance::a_service_on_a_network_takes_what_no_longer_prefix_takes;
    /// Busy flows never give way: a full table refuses datagrams and the last ACK of handshakes, and changes no flow (RFC 6888 REQ-11).
    full::a_full_table_refuses_what_is_new_and_keeps_what_is_established;
    /// A handshake that found no room stays half-open, and is complete when the client sends again and there is room (RFC 9293, 3.8.1).
    full::a_handshake_that_found_no_room_succeeds_when_the_client_sends_again;
    /// Flows that both ends have closed, or one has reset, give way to new ones after 2 s, the oldest first (RFC 6888 REQ-11).
    full::closing_flows_give_way_to_handshakes_oldest_first;
    /// In their first 2 s they give way only after one-way datagrams and idle connections (RFC 9293, 3.6.1: their last segments may be under way).
    full::closing_flows_within_their_grace_give_way_last;
    /// Flows of a single datagram give way, the oldest first (RFC 6888 REQ-11).
    full::one_way_datagrams_give_way_oldest_first;
    /// A query that has been answered is passed over once (RFC 6888 REQ-11).
    full::an_answered_query_has_a_second_chance;
    /// A flow that is refreshed stays, while flows of a single datagram give way (RFC 4787 REQ-5 and REQ-6).
    full::a_stream_of_datagrams_stays_while_single_packets_go;
    /// Datagrams whose client has sent again after an answer are kept until they have been idle for 2 min, as long as such flows have at most half of the table (RFC 4787 REQ-5).
    full::a_conversation_is_kept_for_two_minutes_without_a_packet;
    /// Conversations of datagrams that have more than half of the table give way after being idle for 10 s, and to a complete handshake after 1 s (rule of the gateway: a spoofed client can send again without having seen the answer).
    full::conversations_beyond_half_of_the_table_make_way_after_seconds;
    /// Datagrams that keep coming stay, and what is new is refused, until a flow has had no packet since it was looked at (rule of the gateway; RFC 6888 REQ-11).
    full::busy_datagrams_stay_and_what_is_new_is_refused;
    /// Established connections that have been idle for 5 min give way, the idlest first; others never do (RFC 6888 REQ-11; RFC 5382 REQ-5 is the timer while there is room).
    full::idle_established_flows_give_way_the_idlest_first;
    /// Half-open flows have a store of their own; when it is full, the oldest of them gives way (RFC 4987, 3.4).
    full::a_full_half_open_store_gives_up_its_oldest_flow;
    /// Half-open flows do not count in `flows.max` (RFC 4987, 3.2).
    full::half_open_flows_take_no_room_in_the_table;
    /// A flood of SYNs ends half-open flows only, and a handshake faster than the flood replaces the store succeeds (RFC 4987, 3.4 and 3.5).
    full::a_thousand_syns_touch_no_established_flow;
    /// For a minute, FINs and ACKs from the client of a closed connection whose flow has given way are dropped; data is answered by a reset (RFC 9293, 3.6.1 and 3.10.7.1).
    full::late_segments_of_a_closed_flow_that_gave_way_are_dropped;
    /// Want of room is reported when it begins, and, after a minute without, with its figures when it has ended (rule of the gateway).
    full::want_of_room_is_reported_when_it_begins_and_when_it_ends;
    /// A table full of closed connections refuses no client: 20 of 20 connect (RFC 6888 REQ-11).
    full::a_table_full_of_closing_flows_refuses_no_client;
    /// The same clients with an empty table: the control.
    full::an_empty_table_refuses_no_client;
    /// Two flows never share the key of their replies: the second one gets another server, or is refused (RFC 3022, 2.2).
    balance::a_return_key_in_use_leads_to_another_server_or_is_refused;
    /// The gateway itself replies to an echo request to a service address, with the same identifier, sequence number and data (RFC 792; RFC 4443, 4.2).
    icmp::an_echo_request_to_a_service_address_is_answered;
    /// An ICMP message with a bad checksum is dropped silently (RFC 5508 REQ-3; RFC 4443, 2.3).
    icmp::an_echo_request_with_a_wrong_sum_is_dropped;
    /// A service that listens for ICMP gets its echo requests, one flow per identifier, for 60 seconds (RFC 5508 REQ-1 and REQ-2).
    icmp::an_echo_request_to_a_service_that_listens_goes_to_a_server;
    /// Traffic that a server originates itself is foreign traffic (RFC 4787 REQ-8: consistent, documented behaviour).
    icmp::a_servers_own_traffic_passes;
    /// Traffic that belongs to no service is forwarded byte for byte (RFC 1812, 5.2).
    policy::foreign_traffic_passes_unchanged;
    /// A packet from the service port of a server that is not part of a flow is forwarded unchanged: the server talks for itself, or to somebody who did not come by the service address (RFC 4787 REQ-8).
    policy::what_a_server_sends_outside_of_flows_passes;
    /// Ports, protocols and messages that a service address does not offer are each dropped with their own reason (RFC 5382 REQ-4 permits silence).
    policy::what_a_service_address_does_not_offer_is_dropped_by_name;
    /// New flows to a service that is off are answered as on a port on which nothing listens, also where another service listens on the network around it (RFC 9293, 3.10.7.1; RFC 1122, 4.1.3.1).
    policy::a_service_that_is_off_is_answered_as_if_nothing_listened;
    /// Unspecified, loopback, multicast and reserved source addresses, and the service's own, open no flow and get no reply (RFC 1122, 3.2.1.3; RFC 4291, 2.5 and 2.7).
    policy::a_source_that_cannot_be_answered_opens_no_flow;
    /// Hops are counted by the kernel's routing, and not again by the gateway (RFC 1812, 5.3.1; RFC 8200, 3).
    headers::ttl_and_hop_limit_are_left_to_the_kernel;
    /// Traffic class, ECN, identification, DF and flow label stay unchanged (RFC 2474; RFC 3168, 5; RFC 6864, 5.3; RFC 6437, 2).
    headers::all_fields_that_are_not_translated_stay;
    /// IPv4 options are skipped and kept, and the header checksum is updated (RFC 791, 3.1; RFC 3022, 4.1).
    headers::ipv4_options_are_kept;
    /// IPv6 extension headers are parsed and kept, atomic fragments are complete packets, and packets with a remaining route are not translated (RFC 8200, 4 and 8.1; RFC 6946, 4).
    headers::ipv6_extension_headers_are_kept;
    /// A checksum that covers only the pseudo-header is updated as such (virtio 1.2, 5.1.6.2).
    headers::a_partial_checksum_stays_partial;
    /// Checksums are updated and never recomputed, so corruption in transit stays detectable (RFC 1624, 3).
    headers::a_wrong_checksum_stays_wrong_for_its_receiver_to_find;
    /// Bytes after the IP packet are padding of the link layer and are not forwarded (RFC 894).
    headers::padding_behind_a_packet_is_not_sent_on;
    /// No bytes, too few bytes, and versions other than 4 and 6 (RFC 1812, 5.2.2).
    malformed::a_packet_that_is_no_ip_packet_is_dropped;
    /// Header length, total length, header checksum (RFC 1812, 5.2.2).
    malformed::a_broken_ipv4_header_is_dropped;
    /// Payload length and extension headers (RFC 8200, 3 and 4).
    malformed::a_broken_ipv6_header_is_dropped;
    /// Truncation, data offset, contradictory flags (RFC 9293, 3.1).
    malformed::a_broken_tcp_header_is_dropped;
    /// Truncation, length under 8 or beyond the packet (RFC 768).
    malformed::a_broken_udp_header_is_dropped;
    /// Truncation, checksum of missing bytes, code, ICMP of the other family (RFC 792; RFC 4443, 2.1 and 4.1).
    malformed::a_broken_icmp_header_is_dropped;
    /// A VLAN tag is kept (IEEE 802.1Q, 9.6).
    links::vlan_tags_are_kept;
    /// Two VLAN tags are kept (IEEE 802.1ad).
    links::stacked_vlan_tags_are_kept;
    /// LINKTYPE_RAW: only the IP packet.
    links::a_raw_ip_capture_is_replayed;
    /// LINKTYPE_LINUX_SLL, as written by `tcpdump -i any`.
    links::a_linux_cooked_capture_is_replayed;
    /// LINKTYPE_LINUX_SLL2.
    links::a_linux_cooked_capture_of_version_2_is_replayed;
    /// LINKTYPE_NULL, with the address family in the byte order of a little-endian machine.
    links::a_null_capture_is_replayed;
    /// LINKTYPE_LOOP, with the address family in network byte order.
    links::a_loop_capture_is_replayed;
    /// LINKTYPE_PPP, in HDLC-like framing (RFC 1662, 3.1).
    links::a_ppp_capture_is_replayed;
    /// PPPoE: its length field is that of the translated packet (RFC 2516, 4).
    links::a_pppoe_session_is_kept_and_tells_the_length_of_what_it_carries;
    /// MPLS labels are kept (RFC 3032, 2.1).
    links::mpls_labels_are_kept;
    /// IEEE 802.3 with LLC and SNAP: the length field is that of the translated packet (RFC 1042).
    links::a_snap_header_is_kept_and_tells_the_length_of_what_follows;
    /// pcap with nanosecond timestamps (pcap-savefile(5)).
    links::a_nanosecond_pcap_keeps_its_nanoseconds;
    /// pcap in the byte order of a big-endian machine (pcap-savefile(5)).
    links::a_big_endian_pcap_is_replayed;
    /// pcapng, big-endian, with if_tsresol of 2^-20 s and if_tsoffset (pcapng, 4.2).
    links::a_big_endian_pcapng_with_its_own_clock_is_replayed;
    /// pcap compressed by gzip (RFC 1952).
    links::a_gzipped_pcap_is_replayed;
    /// pcapng with interfaces of three link types: each packet is written to its own interface (pcapng, 4.2).
    links::interfaces_of_several_link_types_are_kept_apart;
    /// Frames without a complete IP packet are reported and skipped.
    links::a_frame_without_a_whole_ip_packet_is_skipped;
    /// Time never runs backwards for the engine: a frame with an earlier timestamp is replayed at the time of the previous one (contract of the engine).
    links::a_frame_from_the_past_counts_as_of_the_time_before;
    /// What is remembered about a client is forgotten when its server leaves service, even if the server comes back.
    standing::a_sticky_client_leaves_a_server_that_drains_and_does_not_come_back;
    /// Resets are sent to both ends with the sequence numbers that they expect (RFC 9293, 3.10.7; RFC 5961, 3.2).
    standing::a_server_that_goes_down_has_its_connections_reset_at_both_ends;
    /// A SYN with new numbers from the port of a flow whose server is down or disabled goes to another server once the old one has been silent for 1 s after such a SYN, and the old one gets a reset (RFC 9293, 3.10.7.4; RFC 5961, 4).
    standing::a_new_connection_leaves_a_server_that_is_gone;
    /// A UDP client that continues to send reaches a live server with its next datagram.
    standing::a_datagram_goes_to_another_server_when_its_own_is_down;
    /// A draining server keeps its flows and gets no new ones; at the deadline, the remaining flows are reset.
    standing::a_draining_server_keeps_its_flows_until_the_deadline;
    /// A reset (RFC 9293, 3.10.7.1), or port unreachable (RFC 792; RFC 4443, 3.1).
    standing::a_service_without_a_server_answers_as_its_last_resort_says;
    /// Drop, reject (RFC 1812, 5.2.7.1), a limit per client; existing flows stay when a rule changes.
    standing::rules_decide_first_match_first_and_can_be_switched_off;
    /// Flows count in the limit of a server once their clients have completed the handshake, so spoofed SYNs take nothing of it (rule of the gateway; RFC 4987, 3.4).
    limits::spoofed_syns_use_up_no_limit;
    /// A burst of handshakes does not exceed a limit: what is left over stays half-open, and both ends get resets when its time is over (rule of the gateway).
    limits::a_handshake_beyond_a_limit_stays_half_open;
    /// Datagrams count in limits once the client has sent again after an answer (rule of the gateway).
    limits::a_conversation_counts_and_a_query_does_not;
    /// A client has a sticky slot once it has completed a handshake; SYNs of strangers displace only each other (rule of the gateway).
    limits::spoofed_syns_displace_no_sticky_client;
    /// Connections that a new client opens at once go to the same server (rule of the gateway).
    limits::the_first_connections_of_a_sticky_client_go_to_one_server;
    /// Two consecutive refusals take a server out of service, two replies bring it back.
    standing::probes_in_a_capture_drive_the_monitors;
    /// Refused connections put a server on passive hold.
    standing::signs_of_trouble_keep_a_server_out_for_a_while;
    /// A packet-too-big error from a router towards the servers is translated with its quote and reaches the client in the name of the service (RFC 5508 REQ-5; RFC 4787 REQ-12; RFC 1191; RFC 8201).
    errors::packet_too_big_from_behind_reaches_the_client;
    /// An ICMP error from the client side about a reply is translated for the server that sent the reply (RFC 5508 REQ-4; RFC 5382 REQ-9).
    errors::packet_too_big_from_the_clients_side_reaches_the_server;
    /// Quotes with IP options, extension headers, eight bytes of transport header or RFC 4884 extensions are matched to their flow (RFC 5508 REQ-3b to 3d).
    errors::an_error_is_translated_however_its_quote_is_written;
    /// Errors with bad checksums, implausible sequence numbers or MTUs, about no flow, and obsolete ones are dropped (RFC 5508 REQ-3; RFC 5927, 4; RFC 6633; RFC 8201, 4).
    errors::errors_that_cannot_be_true_are_dropped_by_name;
    /// No ICMP error, not even a hard one, refreshes or ends a flow (RFC 5508 REQ-6; RFC 5382 REQ-10; RFC 4787 REQ-12; RFC 7857, 2.2).
    errors::an_error_neither_refreshes_nor_ends_a_flow;
    /// Fragments follow the first fragment of their packet, in whatever order they arrive (RFC 4787 REQ-14).
    fragments::fragments_follow_their_first_one_in_any_order;
    /// A fragment that overlaps another one invalidates its packet; a duplicate is dropped (RFC 5722, 4; RFC 1858, 4).
    fragments::overlapping_fragments_spoil_their_packet;
    /// Fragments that could hide or overwrite a transport header, and impossible ones, are dropped (RFC 1858, 3; RFC 3128; RFC 791, 3.2).
    fragments::tiny_fragments_are_dropped;
    /// A flood of fragments displaces old fragments but no unfragmented packet (RFC 4787 REQ-14a).
    fragments::a_flood_of_fragments_hurts_no_whole_packet;
    /// The fragments of a packet must arrive within five seconds of the first one received (RFC 6146, 4: at least two).
    fragments::fragments_have_five_seconds;
    /// An ICMP error that quotes a later fragment is translated like any other (RFC 5508 REQ-4; RFC 792).
    fragments::an_error_about_a_later_fragment_finds_its_flow;
    /// A fragmented echo request gets a reply (RFC 1122, 3.2.2.6).
    fragments::a_long_echo_request_is_answered_in_the_pieces_it_came_in;
    /// A packet that exceeds the path MTU and must not be fragmented is answered with the MTU (RFC 4787 REQ-13; RFC 1191, 4; RFC 8200, 5).
    way::what_is_too_big_is_answered_with_the_mtu_of_the_way;
    /// A packet that exceeds the path MTU and may be fragmented is forwarded in fragments, in order (RFC 4787 REQ-13a; RFC 791, 3.2; RFC 6864, 5.3.1).
    way::what_may_be_fragmented_goes_on_in_pieces;
    /// When the hop limit is exceeded after the translation, the error is sent in the name of the service, so that the sender recognizes its packet (RFC 1812, 5.3.1; RFC 4443, 3.3).
    way::the_last_hop_is_answered_in_the_services_name;
    /// No ICMP error is sent about ICMP errors, about later fragments, or to a source that is no single host (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7).
    way::no_error_is_sent_about_an_error_or_to_nobody;
    /// Resets and ICMP errors are rate-limited (RFC 1812, 4.3.2.8; RFC 4443, 2.4 f).
    way::answers_are_limited;
    /// With `mss-clamp = "auto"`, the maximum segment size in a SYN is lowered to the known path MTU (RFC 9293, 3.7.1).
    way::the_segment_size_of_a_syn_is_lowered_where_the_service_asks;
    /// With full NAT, no two flows to a server share a source port, and every port is used before a flow is refused (RFC 4787 REQ-3; RFC 5382 REQ-7).
    nat::full_nat_gives_each_flow_a_port_of_its_own;
    /// Without a free source port, the client is notified by ICMP type 3 code 13, and existing flows continue (RFC 5508 REQ-8; RFC 6888 REQ-11).
    nat::who_finds_no_port_is_told_that_it_is_prohibited;
    /// The same with type 3 code 1, if so configured (RFC 6888 REQ-11).
    nat::who_finds_no_port_is_told_that_the_host_is_unreachable;
    /// Where no port of a NAT pool is free, a connection that is over yields its own to a new one (RFC 6888 REQ-8 excepts what TCP state tracking allows).
    nat::a_connection_that_is_over_yields_its_nat_port;
    /// A source port rests for 120 s before it is assigned to another flow to the same server (RFC 6888 REQ-8).
    nat::a_freed_port_rests_for_two_minutes;
    /// Flows to different servers may have the same source port, and replies and errors still reach their client (RFC 7857, 3).
    nat::two_servers_share_a_source_port;
    /// A source port rests towards the server that it was used with; a flow to another server may have it (RFC 6888 REQ-8; RFC 7857, 3).
    nat::a_resting_port_serves_another_server;
    /// Flows that have not completed their handshake have at most half of the source ports towards a server, and the oldest of them gives way (rule of the gateway; RFC 4987, 3.4).
    nat::half_open_flows_have_at_most_half_of_the_ports;
    /// Flows of datagrams whose client has not sent again after an answer have at most half of the source ports towards a server, and the oldest of them gives way (rule of the gateway).
    nat::datagrams_without_a_conversation_have_at_most_half_of_the_ports;
    /// Even ports map to even ports, odd ports to odd ports, and ports under 1024 to ports under 1024 (RFC 4787 REQ-3a and REQ-4).
    nat::a_source_port_keeps_parity_and_range_where_that_is_asked_for;
    /// All flows of a client use the same address of the NAT pool (RFC 4787 REQ-2, paired).
    nat::a_client_has_one_source_address;
    /// A server can use its own service, and even reach itself, through the address of the gateway (RFC 4787 REQ-9; RFC 5382 REQ-8).
    nat::a_server_reaches_its_own_service;
    /// ICMP errors about flows between servers reach the right end, from the address that it knows (RFC 5508 REQ-7).
    nat::an_error_about_a_hairpinned_flow_reaches_who_asked;
    /// A packet to an address of a NAT pool that is not part of a flow is not forwarded (RFC 4787 REQ-8; RFC 5382 REQ-3).
    nat::what_comes_to_a_source_address_of_no_flow_goes_nowhere;
    /// Fragmented packets of different hosts that get the same source address have different identifications (RFC 6864, 5.3.1).
    nat::fragments_of_different_ends_never_become_one_packet;
    /// An IPv6 service with IPv4 servers: TCP, UDP, fragments, echo and errors in both directions, checksum-neutral (RFC 6146; RFC 7915, 4 and 5).
    nat::ipv6_clients_reach_ipv4_servers;
    /// An IPv4 service with IPv6 servers: an absent UDP checksum is computed, packets over 1,280 bytes are fragmented or answered, source routes are refused (RFC 7915, 4 and 5).
    nat::ipv4_clients_reach_ipv6_servers;
    /// GRE and ESP are balanced by addresses alone, including fragments; a protocol that no service offers is answered (RFC 792; RFC 4443, 3.4).
    nat::gre_and_esp_go_by_addresses_alone;
    /// SCTP is balanced by its ports, and its CRC32c is valid after the translation if it was valid before (RFC 9260, 6.8).
    nat::sctp_goes_by_its_ports_and_its_sum_stays_right;
}
