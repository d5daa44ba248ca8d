"""
Functions of the author that take events: how projections and consumers declare and call them.

    event_handler       a function and its signature, checked at its declaration
    sql_call            a call of an async function in the transaction of its event
    handler_connection  the connection that it gets, which does not end the transaction
    poison_event        an event that can never be applied, and why
    on_poison           OnPoison: what happens then
"""
