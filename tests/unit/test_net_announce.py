from veagent.net.announce import announcement, question

MAC, IP = "02:00:00:00:00:09", "10.66.0.9"


def test_an_announcement_is_an_arp_request_to_all_for_its_own_address():
    frame = announcement(MAC, IP)
    assert frame.hex(" ") == (
        "ff ff ff ff ff ff 02 00 00 00 00 09 08 06 "
        "00 01 08 00 06 04 00 01 "
        "02 00 00 00 00 09 0a 42 00 09 "
        "00 00 00 00 00 00 0a 42 00 09"
    )


def test_a_question_is_from_who_asks_for_another_address():
    frame = question(MAC, "10.66.0.1", asked=IP)
    assert frame[28:32] == bytes([10, 66, 0, 1])
    assert frame[38:42] == bytes([10, 66, 0, 9])
