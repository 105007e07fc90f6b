//! What was tried on a node by those who wished it ill, or by people who meant no harm: one file for each finding, named for
//! what it defends.

mod a_label_stands_for_its_bytes;
mod a_row_that_cannot_be_read_is_told_of;
mod an_entry_is_bounded;
mod an_old_directory_is_no_node;
mod an_upload_stops_nothing;
mod clients_do_not_keep_nodes_apart;
mod files_are_ours_alone;
mod http_is_bounded_and_asked_by_nobodys_page;
mod nobody_takes_more_than_his_share;
mod producers_are_their_owners;
mod signals_and_pipes_end_in_order;
mod what_becomes_much_is_paid_for;
mod what_can_be_read_comes_back;
mod what_is_gone_is_told;
mod what_the_system_refuses_is_no_damage;
